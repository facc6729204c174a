"""What a test needs and this machine has not got."""

import os
from typing import NoReturn

import pytest


def skip(what: str, reason: Exception, is_expected: bool) -> NoReturn:
    """Skip the test; but on a CI machine that should have it, so that no test is left out there by
    accident, it fails."""
    if is_expected and os.environ.get("CI") == "true":
        pytest.fail(f"no {what} for the tests: {reason}")
    pytest.skip(str(reason))
