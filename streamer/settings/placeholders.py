"""What stands in a setting for something that differs from machine to machine.

So all replicas of a container, which differ in their host names alone, have one configuration.
"""

import re
import socket

HOST = "{host}"
KEYS = ("app.instance", "state.dir")
"""The settings in which it may stand."""
_ANY = re.compile(r"\{\w*\}")


def filled(text: str) -> str:
    """The text with the name of this host for each `{host}`.

    ValueError for any other name in braces: workers that take a misspelt one as it is would all
    have the same instance, and push each other out.
    """
    for found in _ANY.findall(text):
        if found != HOST:
            raise ValueError(f"{text!r} has {found} in it, and there is only {HOST}")
    return text.replace(HOST, socket.gethostname())
