"""Brokers for tests."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker import Broker, Unavailable, jars, java

from tests import absent
from tests.support import compile_kernels


@contextmanager
def a_broker(**options: Any) -> Iterator[Broker]:
    """A running broker, with the options of `Broker`. Where none can be, the test is skipped, or
    fails on a CI machine that has Java. The kernels of its workers are compiled before."""
    try:
        broker = Broker(**options, brief=True)
    except Unavailable as reason:
        absent.skip("Kafka", reason, _has_java())
    compile_kernels()
    with broker:
        yield broker


@contextmanager
def one_broker(folder: Path, settings: dict[str, str]) -> Iterator[str]:
    """Bootstrap servers of the one broker of all processes that share a folder, as a broker of its
    own costs each of them more CPU than most of its tests. The first that comes starts it, and ends
    it when all the others are done."""
    address = folder / "broker"
    with (folder / "users").open("w") as users, (folder / "starting").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if address.exists():
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield address.read_text()
            return
        # Clicks of tests are years old: a look at what retention has outlived would take them away
        # in the middle of a test.
        seldom = {"log.retention.check.interval.ms": "86400000"}
        with a_broker(settings=seldom | settings) as broker:
            address.write_text(broker.bootstrap)
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield broker.bootstrap
            # Whoever comes from now on starts another one.
            fcntl.flock(starting, fcntl.LOCK_EX)
            address.unlink()
            fcntl.flock(starting, fcntl.LOCK_UN)
            fcntl.flock(users, fcntl.LOCK_EX)


def need_jars() -> None:
    """Let a test that starts its own brokers be skipped, or fail, as `a_broker` does."""
    try:
        jars()
    except Unavailable as reason:
        absent.skip("Kafka", reason, _has_java())


def _has_java() -> bool:
    try:
        return bool(java())
    except Unavailable:
        return False
