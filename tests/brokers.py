"""Brokers for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from broker import Broker, Unavailable, java


@contextmanager
def a_broker(**options: Any) -> Iterator[Broker]:
    """A running broker, with the options of `Broker`. Where none can be, the test is skipped.

    On a CI machine that has Java the tests must run, so that nothing is skipped there by accident.
    """
    try:
        broker = Broker(**options)
    except Unavailable as reason:
        if os.environ.get("CI") == "true" and _has_java():
            pytest.fail(f"no Kafka for the tests: {reason}")
        pytest.skip(str(reason))
    with broker:
        yield broker


def _has_java() -> bool:
    try:
        return bool(java())
    except Unavailable:
        return False
