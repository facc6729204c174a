"""What to call an item, by its attributes."""

from streamer.state.store import Attributes

NAMES = ("name", "title", "description")
"""Attributes that may tell, the best first."""


def text(attributes: Attributes, name: str) -> str:
    """An attribute on one line, "" if there is none."""
    value = attributes.get(name, "")
    return value if isinstance(value, str) else ", ".join(value)


def name_of(attributes: Attributes) -> str:
    """The name of an item, "" if no attribute tells."""
    return next(filter(None, (text(attributes, name) for name in NAMES)), "")
