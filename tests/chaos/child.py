"""The CLI, in a process that kills itself at one chosen point.

CHAOS_PLAN is a JSON object: `point` (a step of the commit, of a restore or of a reset, or a write
to RocksDB inside a step),
`when` (before, middle, after), `call` (at which call of it, from 1), and `marker`, a file that is
written just before the kill, so that a test knows that the point was reached. With `space` those
calls count that are of the commit with which a new vector space begins. With `freezes` it
stops there (SIGSTOP) until somebody lets it go on, and with `sleeps` it rests so many seconds. With
`slow` nothing is killed: each call of a
transaction that takes more seconds than that counts as one that may have been asked twice.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamer import cli
from streamer.admin import forget
from streamer.kafka import topics, transactions
from streamer.state.store import Store
from streamer.worker import header, restore
from streamer.worker.batch import Batch
from streamer.worker.commit import Committer
from streamer.worker.outgoing import Outgoing
from streamer.worker.tail import Tail

PLAN = json.loads(os.environ["CHAOS_PLAN"])
SENDS = 20
"""The middle of `produce` is after this many records."""
IN_FLIGHT_SECONDS = 0.003
"""The middle of `commit` is this long after it began: its outcome is not known then."""

POINTS: dict[str, tuple[Any, str]] = {
    step: (Committer, step) for step in ("begin", "produce", "offsets", "commit", "apply")
} | {
    "tail": (Tail, "_apply"),
    "fold": (restore, "load_model"),
    "space": (header, "settle"),
    "adopt": (Outgoing, "publish_all"),
    "finish": (Outgoing, "write_folder"),
    "recreate": (topics, "recreate"),
    "remember": (forget, "write"),
}


begins_space = False


def die() -> None:
    Path(PLAN["marker"]).write_text(f"{PLAN['point']} {PLAN['when']}")
    if PLAN.get("sleeps"):
        time.sleep(PLAN["sleeps"])
        return
    if PLAN.get("freezes"):
        os.kill(os.getpid(), signal.SIGSTOP)
        return
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL returned")


def watch_spaces() -> None:
    """Know whether the commit that is made is one with which a new vector space begins."""
    run = Committer.run

    def wrapped(committer: Committer, batch: Batch) -> None:
        global begins_space
        begins_space = batch.space is not None
        run(committer, batch)

    Committer.run = wrapped  # type: ignore[assignment, method-assign]


def counts() -> bool:
    """Whether a call counts."""
    return begins_space or not PLAN.get("space")


def before(owner: Any, name: str, act: Callable[[Any], None]) -> None:
    """Call `act` with the first argument (self) of the chosen call, and then make the call."""
    original, calls = getattr(owner, name), 0

    def wrapped(first: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += counts()
        if calls == PLAN["call"]:
            act(first)
        return original(first, *args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str) -> None:
    original, calls = getattr(owner, name), 0

    def wrapped(first: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = original(first, *args, **kwargs)
        calls += counts()
        if calls == PLAN["call"]:
            if isinstance(first, Committer):
                first.producer.flush(10)  # so that the log has records that must never be seen
            die()
        return result

    setattr(owner, name, wrapped)


def at_send(committer: Committer) -> None:
    """Die in `produce`, with some records in the log and some still in the queue."""
    send, sent = committer._send, 0

    def counted(*args: Any, **kwargs: Any) -> None:
        nonlocal sent
        send(*args, **kwargs)
        sent += 1
        if sent == SENDS // 2:
            committer.producer.flush(10)
        if sent == SENDS:
            die()

    committer._send = counted  # type: ignore[method-assign]


def in_flight(_: Committer) -> None:
    threading.Timer(IN_FLIGHT_SECONDS, die).start()


class _DyingDb:
    """RocksDB, but it never writes again."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def write(self, batch: Any) -> None:
        die()


def at_write(owner: Any) -> None:
    store: Store = owner.store
    store._db = _DyingDb(store._db)  # type: ignore[assignment]


def plan() -> None:
    watch_spaces()
    owner, name = POINTS[PLAN["point"]]
    if PLAN["when"] == "after":
        after(owner, name)
    elif PLAN["when"] == "before":
        before(owner, name, lambda _: die())
    elif PLAN["point"] == "produce":
        before(owner, name, at_send)
    elif PLAN["point"] == "commit":
        before(owner, name, in_flight)
    else:
        before(owner, name, at_write)


if __name__ == "__main__":
    if "slow" in PLAN:
        transactions.SLOW_SECONDS = PLAN["slow"]
    else:
        plan()
    cli.main()
