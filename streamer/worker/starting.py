"""What a worker does beside its start: it says how far that is, beats, and hears of a stop."""

from collections.abc import Callable

from streamer.watch.health import Health
from streamer.worker.group import Group
from streamer.worker.stop import Stop


class Stopped(Exception):
    """A stop was asked for before the worker was running."""


def progress_of(
    health: Health, stop: Stop, begin: float, end: float, member: Group | None = None
) -> Callable[[float], None]:
    """What a part of the restore calls with the share of it that is done. The part takes the
    restore from `begin` to `end`; where the worker is a `member` already, it stays one."""

    def on_progress(share: float) -> None:
        health.restored = max(health.restored, begin + share * (end - begin))
        health.beat()
        if member is not None:
            member.poll()
        if stop.asked:
            raise Stopped

    return on_progress
