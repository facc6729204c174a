"""A worker in the process of the test, which may look into it and break it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from streamer.settings.sections import Config
from streamer.worker.header import Accepted
from streamer.worker.loop import Worker
from streamer.worker.stop import Stop
from tests.support import SECONDS

T = TypeVar("T")


class Until(Stop):
    """Asks for a stop as soon as something is true, which must not take too long."""

    def __init__(self, done: Callable[[], bool]) -> None:
        self.done, self.deadline = done, math.inf

    @property
    def asked(self) -> bool:
        assert time.monotonic() < self.deadline, f"not within {SECONDS:g} s"
        return self.done()

    @asked.setter
    def asked(self, value: bool) -> None:
        raise NotImplementedError


@contextmanager
def started(config: Config, done: Callable[[Worker], bool]) -> Iterator[Worker]:
    """A worker that is ready to loop, and will until `done`."""
    with ExitStack() as stack:
        stop = Until(lambda: stop.deadline < math.inf and done(worker))
        worker = Worker(config, stop, stack)
        worker.start(Accepted())
        stop.deadline = time.monotonic() + SECONDS
        yield worker


def has_read(ends: dict[tuple[str, int], int]) -> Callable[[Worker], bool]:
    """Whether a worker has read to these offsets, markers included, and put nothing back."""

    def is_there(worker: Worker) -> bool:
        at = worker.reader.expected
        return not worker.reader.waiting and all(at[where] >= end for where, end in ends.items())

    return is_there


def run(config: Config, ends: dict[tuple[str, int], int], items: int = 0) -> int:
    """Let a worker take all before these offsets, and at least so many records of items, and end
    well. Returns how many clicks counted."""

    def done(worker: Worker) -> bool:
        return has_read(ends)(worker) and sum(worker.store.items_taken().values()) >= items

    with started(config, done) as worker:
        worker.loop()
        worker.finish()
        return int(next(iter(worker.metrics.events_total.collect())).samples[0].value)


def until(ask: Callable[[], T]) -> T:
    """What this gives, as soon as it gives something."""
    deadline = time.monotonic() + SECONDS
    while not (got := ask()):
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s"
    return got
