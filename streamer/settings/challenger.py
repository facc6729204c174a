"""The settings of the challenger that `[challenger]` names, and what must be true of them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_type_hints

import msgspec

from core.settings import ChallengerSettings, Settings
from core.terms import MAY_DIFFER, SAME
from streamer.settings import limits, presets
from streamer.settings.sections import Config

FIXED = (*SAME, "seed")
"""What of [model] is the vector space's, and so the champion's."""
_TYPES = {
    f"{section}.{name}": type_
    for section in MAY_DIFFER
    for name, type_ in get_type_hints(get_type_hints(Settings)[section]).items()
}


def settings(config: Config) -> Settings | None:
    """The settings by which it learns, of a loaded configuration; None if there is none."""
    found = _of(config)
    return None if found is None else found.engine_settings


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """Keys of the section whose values make no challenger, each with what is wrong."""
    c = config.challenger
    if c.preset and c.preset not in presets.PRESETS:
        yield "challenger.preset", f"{c.preset!r} is none of {', '.join(presets.PRESETS)}"
        return
    try:
        found = _of(config)
    except ValueError as error:
        yield "challenger.set", str(error)
        return
    if found is None:
        if c.promote:
            problem = "needs a challenger: name one by challenger.preset or challenger.set"
            yield "challenger.promote", problem
        return
    key = "challenger.set" if c.set else "challenger.preset"
    for name in FIXED:
        own, theirs = getattr(found.model, name), getattr(config.model, name)
        if own != theirs:
            yield key, f"would make model.{name} {own}, and in one vector space it is {theirs}"
    for where, problem in limits.problems(found):
        yield key, f"{where} {problem}"
    if found.engine_settings == config.engine_settings:
        yield key, "is what the settings say already: let it be something else, or leave it out"
    if config.quality.sample == 0:
        yield key, "needs trials to be compared by: let quality.sample be above 0"
    if c.promote and config.publish.min_drift == 0:
        yield (
            "challenger.promote",
            "must be false where publish.min_drift is 0: all rows move when it takes over, and "
            "they would all have to leave with one commit",
        )
    if c.promote and config.round.max_seconds == 0:
        yield (
            "challenger.promote",
            "must be false where rounds go by count (round.max_seconds = 0): a restart may begin "
            "the challenger anew, and output would not be the same",
        )


def _of(config: Config) -> Config | None:
    """The configuration with the challenger's sections; ValueError for what cannot be read."""
    c = config.challenger
    if not c.preset and not c.set:
        return None
    begun = Config() if c.preset else config
    given: dict[str, Any] = dict(presets.PRESETS[c.preset]) if c.preset else {}
    for line in c.set:
        key, equals, text = (part.strip() for part in line.partition("="))
        if not equals:
            raise ValueError(f"{line!r} is no setting: write section.key=value")
        if key not in _TYPES:
            of = ", ".join(f"[{section}]" for section in MAY_DIFFER)
            raise ValueError(f"{key} is no setting of {of}, in which alone it may differ")
        try:
            given[key] = msgspec.convert(text, _TYPES[key], strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(f"{line}: {error}") from None
    if c.preset:
        given = {f"model.{name}": getattr(config.model, name) for name in FIXED} | given
    parts = {
        section: replace(
            getattr(begun, section),
            **{
                key.partition(".")[2]: value
                for key, value in given.items()
                if key.startswith(f"{section}.")
            },
        )
        for section in MAY_DIFFER
    }
    return replace(config, challenger=ChallengerSettings(), **parts)
