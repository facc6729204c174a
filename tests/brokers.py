"""Brokers for tests."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from broker import Broker, Unavailable, jars, java

from streamer import kernels
from streamer.settings.load import load
from tests import absent
from tests.support import SMALL


@contextmanager
def a_broker(**options: Any) -> Iterator[Broker]:
    """A running broker, with the options of `Broker`. Where none can be, the test is skipped, or
    fails on a CI machine that has Java. The kernels of its workers are compiled before."""
    try:
        broker = Broker(**options)
    except Unavailable as reason:
        absent.skip("Kafka", reason, _has_java())
    _compile_kernels()
    with broker:
        yield broker


@cache
def _compile_kernels() -> None:
    """So that no test waits for it; one process after the other, as all need the same."""
    with (Path(gettempdir()) / "walkstream-tests-compile.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for slots in (0, 1):
            settings = [f"{key}={value}" for key, value in SMALL.items()]
            config = load(None, [*settings, f"model.attribute_slots={slots}"], {})
            kernels.prepare(config.engine_settings)


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
