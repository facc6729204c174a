"""The settings that make clicks of a sample, and their lines for `walkstream.toml`."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import msgspec

from streamer.decode.fields import AT_KEY
from streamer.decode.paths import ABSENT, OR, elements, find
from streamer.inspect import guessing, shapes
from streamer.inspect.guessing import Guess
from streamer.inspect.shapes import FORMATS, Click, Field, Form
from streamer.settings.file import toml
from streamer.settings.secrets import masked
from streamer.settings.sections import ClickSettings, Config, EventSettings

OPTIONAL = ("event_type", "weight", "event_id")
ROLES = {"item_id": "item", "user_id": "user"}


class EventType(msgspec.Struct, frozen=True):
    count: int
    weight: float
    """What is proposed; 0 leaves out one that speaks against an item, or is about none."""
    note: str


def configured(config: Config) -> dict[str, str]:
    """Paths that somebody has set, "" for a field that is not to be used."""
    usual = ClickSettings().fields
    return {name: path for name, path in config.clicks.fields.items() if path != usual[name]}


def clicks(
    config: Config, forms: Counter[Form], found: Mapping[str, Field], guess: Guess
) -> ClickSettings:
    """Where each field of a click is, and how clicks are written. What is configured stays."""
    usual = ClickSettings()
    # Where an optional field is by default, there may be something that is none.
    unfit = {name: "" for name in OPTIONAL if name in found and found[name].values}
    written = Counter(FORMATS[form] for form in forms.elements() if form in FORMATS)
    format, unit = config.clicks.format, config.clicks.time_unit
    if format == usual.format and written:
        format = written.most_common(1)[0][0]
    return ClickSettings(
        format,
        usual.fields | unfit | guess.paths | configured(config),
        unit if unit != usual.time_unit else guess.time_unit,
    )


# -- event types ---------------------------------------------------------------------------------


def values(sample: Iterable[Click], path: str) -> list[object]:
    """What is at a path, of each click or of each element that the path leads to; no nulls.

    None at an empty path, which is not used.
    """
    out: list[object] = []
    for click in sample if path else ():
        try:
            clicks: list[object] = [*elements(click, path)] or [click]
            out += [find(one, path) for one in clicks]
        except ValueError:  # no array: the decoder will say so
            continue
    return [value for value in out if value is not None and value is not ABSENT]


def event_types(
    seen: Field | None, events: EventSettings, about_none: Mapping[str, str]
) -> dict[str, EventType]:
    """The types in the sample, the most common first, with what each should weigh.

    `about_none` are those that are to be left out, as `incomplete` finds them.
    """
    if seen is None:
        return {}
    counts = Counter(v for v in seen.values if isinstance(v, str) and v.isprintable())
    usual, out = EventSettings().weights, {}
    for name, count in counts.most_common():
        given = events.weights.get(name)
        if name in about_none and given == usual.get(name):
            out[name] = EventType(count, 0.0, f"{about_none[name]}: 0 leaves it out")
        elif (weight := events.weights.get("*") if given is None else given) is not None:
            out[name] = EventType(count, weight, "")
        elif (weight := guessing.type_weight(name)) is None:
            out[name] = EventType(count, 1.0, "an unknown name: weigh it yourself")
        elif weight:
            out[name] = EventType(count, weight, "guessed from its name")
        elif guessing.is_shown(name):
            out[name] = EventType(count, 0.0, "shows items, clicked or not: 0 leaves it out")
        else:
            out[name] = EventType(count, 0.0, "speaks against the item: 0 leaves it out")
    return out


def incomplete(
    sample: Iterable[tuple[Click, bytes | None]], paths: Mapping[str, str]
) -> dict[str, str]:
    """Event types most of whose clicks have no item or no user, each with what it lacks.

    `sample` are clicks with the keys of their records. Nothing is said where all types are so: then
    the path is wrong, rather than the types.
    """
    counts: Counter[str] = Counter()
    without = {role: Counter[str]() for role in ROLES if role in paths}
    for click, key in sample:
        for name in {v for v in values([click], paths["event_type"]) if isinstance(v, str)}:
            counts[name] += 1
            for role, lacking in without.items():
                there = [key] if paths[role] == AT_KEY else values([click], paths[role])
                lacking[name] += all(value in (None, "", b"") for value in there)
    out: dict[str, str] = {}
    for role, lacking in without.items():
        found = {
            name: f"{lacking[name] / count:.0%} have no {ROLES[role]}"
            for name, count in counts.items()
            if lacking[name] > count / 2
        }
        if len(found) < len(counts):
            out |= found
    return out


# -- changes of a database -----------------------------------------------------------------------

_OPERATIONS = {
    "c": (1.0, "a row that was made"),
    "r": (1.0, "a row that was there when the connector began"),
    "u": (0.0, "a change of a row, which counted when it was made"),
    "d": (0.0, "a row that was deleted"),
}
"""What Debezium calls them; others, which are rare, are about no row."""


def of_row(found: Mapping[str, Field], prefix: str) -> dict[str, Field]:
    """The fields of the row; where it has no time, that of the change in the database."""
    row = f"{prefix}{shapes.ROW}."
    times = [f"{prefix}source.ts_ms", f"{prefix}ts_ms"]
    out = {path: seen for path, seen in found.items() if path.startswith(row)}
    has_time = any(guessing.named(p, guessing.TIMES, guessing.TIME_ENDINGS) for p in out)
    return out if has_time else out | {path: found[path] for path in times[:1] if path in found}


def with_operation(guess: Guess, prefix: str) -> Guess:
    """A row without a type of its own counts by what was done to it, and a row that is gone too."""
    paths, why = dict(guess.paths), dict(guess.why)
    if why.get("event_type") != guessing.CONFIGURED:
        known = [paths["event_type"]] if "event_type" in paths else []
        paths["event_type"] = OR.join([*known, f"{prefix}op"])
        why["event_type"] = "what Debezium says was done to the row"
    return replace(guess, paths=paths, why=why)


def operations(events: EventSettings, types: Mapping[str, EventType]) -> dict[str, EventType]:
    """Those of Debezium, whether they are in the sample or not. What is configured stays."""
    return {
        name: EventType(types[name].count if name in types else 0, weight, note)
        for name, (weight, note) in _OPERATIONS.items()
        if name not in events.weights
    }


# -- lines ---------------------------------------------------------------------------------------


def lines(proposed: Config, types: Mapping[str, EventType]) -> str:
    """The lines of `walkstream.toml` that differ from the defaults."""
    usual = Config()
    fields, events = proposed.clicks.fields, proposed.events
    registry = "# url = ...  # of your schema registry"
    if "url" in proposed.registry:
        registry = f"url = {toml(masked('registry.url', proposed.registry['url']))}"
    sections: dict[str, list[str]] = {
        "topics": list(_differing(proposed.topics, usual.topics, "clicks")),
        "registry": [registry] * (proposed.clicks.format in ("avro", "json-schema")),
        "clicks": list(_differing(proposed.clicks, usual.clicks, "format", "time_unit")),
        "clicks.fields": [
            f"{name} = {toml(path)}"
            for name, path in fields.items()
            if path != usual.clicks.fields[name]
        ],
        "events.weights": list(_weight_lines(events, types, usual.events)),
    }
    return "\n\n".join(
        "\n".join([f"[{section}]", *lines]) for section, lines in sections.items() if lines
    )


def _differing(part: object, usual: object, *names: str) -> Iterator[str]:
    for name in names:
        if (value := getattr(part, name)) != getattr(usual, name):
            yield f"{name} = {toml(value)}"


def _weight_lines(
    events: EventSettings, types: Mapping[str, EventType], usual: EventSettings
) -> Iterator[str]:
    for name in dict.fromkeys((*types, *events.weights)):
        key = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)
        note = f"  # {types[name].note}" if name in types and types[name].note else ""
        weight = events.weights[name]
        if name == "*" or weight != usual.weights.get(name, events.weights.get("*")):
            # What is so by default, or by the weight of any other type, needs no line.
            yield f"{key} = {toml(weight)}{note}"
