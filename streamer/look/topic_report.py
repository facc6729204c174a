"""What a sample of records holds, and the settings that make clicks of it.

It guesses, and then lets the decoder of a worker say what the guess is worth.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from confluent_kafka import Message

from streamer.decode.events import Bad, Decoder
from streamer.decode.formats import short
from streamer.decode.registry import Registry
from streamer.errors import ConfigError
from streamer.look import guessing, shapes
from streamer.look.guessing import Guess
from streamer.look.shapes import FORMATS, Field, Form
from streamer.settings import ClickSettings, Config, EventSettings
from streamer.settings_file import toml
from streamer.settings_view import masked

OPTIONAL = ("event_type", "weight", "event_id")


class Seen(msgspec.Struct, frozen=True):
    """A field of the sample."""

    path: str
    types: list[str]
    """The most common first."""
    present: float
    """Share of the clicks that have it and not null."""
    distinct: int
    example: str


class Source(msgspec.Struct, frozen=True):
    """Where a field of a click is, and what speaks for it."""

    path: str
    why: str


class EventType(msgspec.Struct, frozen=True):
    count: int
    weight: float
    """What is proposed; 0 leaves out one that speaks against an item."""
    note: str


class Unused(msgspec.Struct, frozen=True):
    """Clicks that would be dead letters for one reason, and the first of them."""

    count: int
    message: str
    where: str
    value: str


class Report(msgspec.Struct, frozen=True):
    """What `check-topic --json` prints."""

    topic: str
    partitions: int
    records: int
    """Of the sample."""
    forms: dict[str, int]
    """How their values are written."""
    fields: list[Seen]
    sources: dict[str, Source]
    time_unit: str
    event_types: dict[str, EventType]
    clicks: int
    """That a worker would take with the proposed settings."""
    users: int
    items: int
    users_in_several_partitions: int
    bad: int
    """That would be dead letters, and which by reason."""
    unused: dict[str, Unused]
    unwanted: int
    """Of types that weigh 0: neither clicks nor bad."""
    warnings: list[str]
    settings: str
    """TOML of what differs from the defaults."""


def examine(
    config: Config, topic: str, partitions: int, messages: Sequence[Message], now_ms: int
) -> Report:
    """What the records hold, read with proposed settings. What is configured is not guessed.

    WalkstreamError if a schema registry is configured and does not answer.
    """
    registry = Registry("avro", config.registry) if "url" in config.registry else None
    parsed = [shapes.parse(message.value(), registry) for message in messages]
    forms = Counter(form for form, _ in parsed)
    objects = [click for _, clicks in parsed for click in clicks]
    found = shapes.fields(objects)
    given = _configured(config)
    guess = guessing.guess(
        found,
        len(objects),
        [message.key() for message in messages],
        [message.timestamp()[1] for message in messages],
        {name: path for name, path in given.items() if path},
        now_ms,
    )
    clicks = _proposed(config, forms, found, guess, given)
    types = _event_types(found.get(clicks.fields["event_type"]), config.events)
    weights = {name: one.weight for name, one in types.items()}
    events = replace(config.events, weights=config.events.weights | weights)
    warnings = list(_doubts(config, forms, guess, clicks))
    try:
        tried = _try(Decoder(clicks, events, config.registry), messages)
    except ConfigError as error:
        tried = _Tried()
        warnings.append(str(error))
    if tried.scattered:
        warnings.append(
            f"{tried.scattered:,} of {len(tried.users):,} users have clicks in several partitions, "
            "where their order is lost and each worker sees a part of a session: let producers set "
            "the key of a record to its user"
        )
    return Report(
        topic=topic,
        partitions=partitions,
        records=len(messages),
        forms={form.value: count for form, count in forms.most_common()},
        fields=[_seen(one, len(objects)) for one in found.values()],
        sources={name: Source(path, guess.why[name]) for name, path in guess.paths.items()},
        time_unit=clicks.time_unit,
        event_types=types,
        clicks=tried.clicks,
        users=len(tried.users),
        items=len(tried.items),
        users_in_several_partitions=tried.scattered,
        bad=len(tried.bad),
        unused=_unused(tried.bad),
        unwanted=tried.unwanted,
        warnings=warnings,
        settings=_settings(config, topic, clicks, events, types),
    )


def _configured(config: Config) -> dict[str, str]:
    """Paths that somebody has set, "" for a field that is not to be used."""
    usual = ClickSettings().fields
    return {name: path for name, path in config.clicks.fields.items() if path != usual[name]}


def _proposed(
    config: Config,
    forms: Counter[Form],
    found: Mapping[str, Field],
    guess: Guess,
    given: dict[str, str],
) -> ClickSettings:
    usual = ClickSettings()
    # Where an optional field is by default, there may be something that is none.
    unfit = {name: "" for name in OPTIONAL if name in found and found[name].values}
    written = Counter(FORMATS[form] for form in forms.elements() if form in FORMATS)
    format, unit = config.clicks.format, config.clicks.time_unit
    if format == usual.format and written:
        format = written.most_common(1)[0][0]
    return ClickSettings(
        format,
        usual.fields | unfit | guess.paths | given,
        unit if unit != usual.time_unit else guess.time_unit,
    )


def _event_types(seen: Field | None, events: EventSettings) -> dict[str, EventType]:
    """The types in the sample, the most common first, with what each should weigh."""
    if seen is None:
        return {}
    counts = Counter(v for v in seen.values if isinstance(v, str) and v.isprintable())
    out = {}
    for name, count in counts.most_common():
        if (weight := events.weights.get(name, events.weights.get("*"))) is not None:
            out[name] = EventType(count, weight, "")
        elif (weight := guessing.type_weight(name)) is None:
            out[name] = EventType(count, 1.0, "an unknown name: weigh it yourself")
        elif weight:
            out[name] = EventType(count, weight, "guessed from its name")
        else:
            out[name] = EventType(count, 0.0, "speaks against the item: 0 leaves it out")
    return out


def _doubts(
    config: Config,
    forms: Counter[Form],
    guess: Guess,
    proposed: ClickSettings,
) -> Iterator[str]:
    """What somebody has to look into."""
    framed = forms[Form.FRAMED] + forms[Form.FRAMED_JSON]
    if framed and "url" not in config.registry:
        yield (
            f"{framed:,} records are in the Confluent wire format: set registry.url to the schema "
            'registry, install "walkstream[registry]", and look again'
        )
    if len({FORMATS[form] for form in forms if form in FORMATS}) > 1:
        yield f"records are written in several ways; only those in {proposed.format} can be read"
    if forms[Form.NULL]:
        yield f"{forms[Form.NULL]:,} records have no value: each becomes a dead letter"
    for name in ("user_id", "item_id", "ts"):
        if name not in guess.paths:
            yield f"no field looks like {name}: name it in clicks.fields.{name}"


@dataclass
class _Tried:
    """What the decoder made of the sample."""

    clicks: int = 0
    users: Counter[str] = field(default_factory=Counter)
    """In how many partitions each has clicks."""
    items: set[str] = field(default_factory=set)
    bad: list[tuple[Message, Bad]] = field(default_factory=list)
    unwanted: int = 0

    @property
    def scattered(self) -> int:
        return sum(count > 1 for count in self.users.values())


def _try(decoder: Decoder, messages: Sequence[Message]) -> _Tried:
    by_partition: dict[int, list[Message]] = defaultdict(list)
    for message in messages:
        by_partition[message.partition() or 0].append(message)
    tried = _Tried()
    for batch in by_partition.values():
        decoded = decoder(
            [m.key() for m in batch], [m.value() for m in batch], [m.timestamp()[1] for m in batch]
        )
        tried.clicks += len(decoded.clicks)
        tried.users.update(set(decoded.clicks.users))
        tried.items.update(decoded.clicks.items)
        tried.bad += [(batch[one.record], one) for one in decoded.bad]
        tried.unwanted += decoded.unwanted
    return tried


def _unused(bad: list[tuple[Message, Bad]]) -> dict[str, Unused]:
    counts = Counter(one.reason for _, one in bad)
    firsts = {one.reason: (message, one) for message, one in reversed(bad)}
    out = {}
    for reason, count in counts.most_common():
        message, one = firsts[reason]
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        where += "" if one.part is None else f", click {one.part}"
        out[reason.value] = Unused(count, one.message, where, short(one.value))
    return out


def _seen(one: Field, clicks: int) -> Seen:
    example = short(one.values[0]) if one.values else ""
    return Seen(one.path, one.types, round(len(one.values) / clicks, 3), one.distinct, example)


def _settings(
    config: Config,
    topic: str,
    clicks: ClickSettings,
    events: EventSettings,
    types: Mapping[str, EventType],
) -> str:
    """The lines of `walkstream.toml` that differ from the defaults."""
    usual = Config()
    registry = "# url = ...  # of your schema registry"
    if "url" in config.registry:
        registry = f"url = {toml(masked('registry.url', config.registry['url']))}"
    sections: dict[str, list[str]] = {
        "topics": [f"clicks = {toml(topic)}"] * (topic != usual.topics.clicks),
        "registry": [registry] * (clicks.format in ("avro", "json-schema")),
        "clicks": [
            f"{name} = {toml(getattr(clicks, name))}"
            for name in ("format", "time_unit")
            if getattr(clicks, name) != getattr(usual.clicks, name)
        ],
        "clicks.fields": [
            f"{name} = {toml(path)}"
            for name, path in clicks.fields.items()
            if path != usual.clicks.fields[name]
        ],
        "events.weights": list(_weight_lines(events, types, usual.events)),
    }
    return "\n\n".join(
        "\n".join([f"[{section}]", *lines]) for section, lines in sections.items() if lines
    )


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
