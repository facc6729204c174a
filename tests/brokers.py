"""Brokers for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
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
