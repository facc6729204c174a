"""What a stranger must not see: values by their key, and the same in texts of libraries."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from streamer.settings.sections import KafkaValue

MASK = "***"

_SECRET = re.compile(r"pass|pwd|secret|token|cred|auth|sasl|user|jaas|key|pem", re.ASCII)
"""In a key of [kafka] or [registry]: rather one too many than a password on a screen."""
_HARMLESS = ("sasl.mechanism", "sasl.mechanisms")
_NAMES = re.compile(r"(user(name)?|principal|(location|url|uri|method|algorithm|id|type|file))$")
"""Ends of keys that `_SECRET` takes, and whose values errors have to name."""
_CREDENTIALS = re.compile(
    # After a scheme, or at the beginning as user:password@. Up to the last @ before another
    # scheme: a password may hold any character.
    r"(?:(?<=://)|^(?=(?:(?!://).)+:(?!//)))(?:(?!://).)*@",
    re.DOTALL,
)
_IN_TEXT = re.compile(r"[^\s/@,'\"]*:[^\s@,]*@")
"""The same in the middle of a sentence."""
_SEPARATORS = re.compile(r"[^\w.-]+")
_SHORTEST = 4
"""A part of a secret with fewer characters would be found in any word."""


def masked(key: str, value: Any) -> Any:
    """The value of a setting without what a stranger must not see."""
    if value != "" and is_secret(key):
        return MASK
    return _CREDENTIALS.sub(f"{MASK}@", value) if isinstance(value, str) else value


def is_secret(key: str) -> bool:
    """Whether the value of a setting is one."""
    section, _, name = key.lower().partition(".")
    return (
        section in ("kafka", "registry")
        and name not in _HARMLESS
        and _SECRET.search(name) is not None
    )


def has_credentials(value: object) -> bool:
    """Whether an address has a user or a password in it."""
    return isinstance(value, str) and _CREDENTIALS.search(value) is not None


def hidden(text: str, given: Mapping[str, KafkaValue]) -> str:
    """A text of a library without the secrets of the section that it was given.

    Libraries repeat what they were given, and parts of it.
    """
    for secret in sorted(_secrets(given), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return _IN_TEXT.sub(f"{MASK}@", text)


def _secrets(given: Mapping[str, KafkaValue]) -> Iterator[str]:
    for name, value in given.items():
        if is_secret(f"kafka.{name}") and not _NAMES.search(name.lower()):
            yield from _parts(str(value))
        elif isinstance(value, str):
            for credentials in _CREDENTIALS.findall(value):
                yield from _parts(credentials[:-1])


def _parts(secret: str) -> Iterator[str]:
    """A secret, and the pieces in which a library may repeat it."""
    for part in (secret, *_SEPARATORS.split(secret)):
        if len(part) >= _SHORTEST or part == secret != "":
            yield part
