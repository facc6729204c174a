"""What a sample of records holds, and the settings that make clicks of it.

It guesses, and then lets the decoder of a worker say what the guess is worth.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import eq

import msgspec
from confluent_kafka import Message

from streamer.decode.events import Bad, Decoder
from streamer.decode.fields import DEFAULT_TYPE
from streamer.decode.formats import cut, short
from streamer.decode.paths import OR
from streamer.decode.registry import Registry
from streamer.errors import ConfigError
from streamer.inspect import guessing, proposal, shapes
from streamer.inspect.guessing import Guess
from streamer.inspect.proposal import EventType
from streamer.inspect.shapes import FORMATS, Field, Form
from streamer.settings.sections import ClickSettings, Config
from streamer.wording import counted


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
    suspicions: list[str]
    """What speaks against this being a topic of clicks."""
    warnings: list[str]
    settings: str
    """TOML of what differs from the defaults."""


def examine(
    config: Config,
    topic: str,
    partitions: int,
    messages: Sequence[Message],
    now_ms: int,
) -> Report:
    """What the records hold, read with proposed settings. What is configured is not guessed.

    WalkstreamError if a schema registry is configured and does not answer.
    """
    registry = Registry("avro", config.registry) if "url" in config.registry else None
    parsed = [shapes.parse(message.value(), registry) for message in messages]
    forms = Counter(form for form, _ in parsed)
    objects = [click for _, clicks in parsed for click in clicks]
    found = shapes.fields(objects)
    prefix = shapes.envelope(objects)
    guess = guessing.guess(
        found if prefix is None else proposal.of_row(found, prefix),
        len(objects),
        [message.key() for message in messages],
        [message.timestamp()[1] for message in messages],
        {name: path for name, path in proposal.configured(config).items() if path},
        now_ms,
    )
    if prefix is not None:
        guess = proposal.with_operation(guess, prefix)
    clicks = proposal.clicks(config, forms, found, guess)
    sample = (
        (click, message.key())
        for message, (_, inside) in zip(messages, parsed, strict=True)
        for click in inside
    )
    paths = guess.paths | {"event_type": clicks.fields["event_type"]}
    about_none = proposal.incomplete(sample, paths)
    typed = shapes.Field(paths["event_type"], proposal.values(objects, paths["event_type"]))
    types = proposal.event_types(typed, config.events, about_none)
    if prefix is not None and paths["event_type"].endswith(f"{prefix}op"):
        types |= proposal.operations(config.events, types)
    weights = {name: one.weight for name, one in types.items()}
    proposed = replace(
        config,
        topics=replace(config.topics, clicks=topic),
        clicks=clicks,
        events=replace(config.events, weights=config.events.weights | weights),
    )
    warnings = list(_doubts(config, forms, found, clicks, guess))
    if forms[Form.UNKNOWN] > len(messages) / 2:
        odd = next(m for m, (form, _) in zip(messages, parsed, strict=True) if form == Form.UNKNOWN)
        warnings.insert(0, _unreadable(odd.value() or b""))
    if prefix is not None and forms[Form.NULL]:
        warnings.append(
            "records without a value follow the deletes of Debezium: tombstones.on.delete = false "
            "of its connector leaves them out"
        )
    if prefix is not None and OR in clicks.fields["event_type"]:
        warnings.append(
            "a row has a type of its own, so that each change of it is one more click, if it has "
            "no event_id, or if its session has ended"
        )
    try:
        tried = _try(Decoder(clicks, proposed.events, config.registry), messages)
    except ConfigError as error:
        tried = _Tried()
        warnings.append(str(error))
    warnings += _alarms(tried, config.dlq.alarm_ratio)
    if tried.scattered:
        warnings.append(
            f"the clicks of {tried.scattered:,} of {counted(len(tried.users), 'user')} are in "
            "several partitions, where their order is lost and each worker sees a part of a "
            "session: let producers set the key of a record to its user"
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
        suspicions=list(_suspicions(config, topic, found, guess, tried)),
        warnings=warnings,
        settings=proposal.lines(proposed, types),
    )


def _doubts(
    config: Config, forms: Counter[Form], found: Mapping[str, Field], proposed: ClickSettings,
    guess: Guess,
) -> Iterator[str]:  # fmt: skip
    """What somebody has to look into."""
    framed = forms[Form.FRAMED] + forms[Form.FRAMED_JSON]
    if framed and "url" not in config.registry:
        yield (
            f"in the Confluent wire format: {counted(framed, 'record')}. Set registry.url to the "
            'schema registry, run `pip install ".[registry]"` in the folder of Walkstream, and '
            "look again"
        )
    if len({FORMATS[form] for form in forms if form in FORMATS}) > 1:
        yield f"records are written in several ways; only those in {proposed.format} can be read"
    if forms[Form.NULL]:
        yield f"without a value: {counted(forms[Form.NULL], 'record')}; each becomes a dead letter"
    for path, reason in guess.unread.items():
        yield (
            f"{path} looks like the time of a click, and cannot be read: {reason}. Let "
            "producers write one of clicks.time_unit; or, if the time at which a record was sent "
            'will do, set clicks.fields.ts = "@timestamp"'
        )
    for name in ("user_id", "item_id", "ts") if found else ():
        if name not in guess.paths and not (name == "ts" and guess.unread):
            yield f"no field looks like {name}: name it in clicks.fields.{name}"
    if found and "event_type" not in guess.paths | proposal.configured(config):
        yield (
            f"no field looks like an event type, so every click counts as a {DEFAULT_TYPE}: if "
            "there is one, name it in clicks.fields.event_type"
        )


def _unreadable(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = ""
    is_row = not text.lstrip().startswith(("{", "[")) and any(mark in text for mark in ",;|\t")
    hint = ", a line of a table: `walkstream publish` sends such files as JSON" if is_row else ""
    return (
        f"most records cannot be read, such as {text_of(value)}{hint}. A record is JSON (an "
        "object, an array of objects, or one a line), MessagePack, or in the Confluent wire format"
    )


@dataclass
class _Tried:
    """What the decoder made of the sample."""

    clicks: int = 0
    users: Counter[str] = field(default_factory=Counter)
    """In how many partitions each has clicks."""
    items: set[str] = field(default_factory=set)
    own_items: int = 0
    """Clicks whose user is their item."""
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
        tried.own_items += sum(map(eq, decoded.clicks.users, decoded.clicks.items))
        tried.bad += [(batch[one.record], one) for one in decoded.bad]
        tried.unwanted += decoded.unwanted
    return tried


def _alarms(tried: _Tried, alarm_ratio: float) -> Iterator[str]:
    """Whether a worker would have too many dead letters, reckoned as its readiness is."""
    every = tried.clicks + tried.unwanted + len(tried.bad)
    if tried.bad and len(tried.bad) >= alarm_ratio * every:
        reason, count = Counter(one.reason for _, one in tried.bad).most_common(1)[0]
        first = next(one.message for _, one in tried.bad if one.reason == reason)
        yield (
            f"{len(tried.bad) / every:.0%} would be dead letters with these settings, and from "
            f"{alarm_ratio:.0%} on (dlq.alarm_ratio) a worker is not ready. {count:,} of "
            f"{len(tried.bad):,} are {reason.value}, such as: {first}"
        )


def _suspicions(
    config: Config, topic: str, found: Mapping[str, Field], guess: Guess, tried: _Tried
) -> Iterator[str]:
    for role, name in vars(config.topics).items():
        if name == topic and role != "clicks":
            yield f"it is topics.{role} of this configuration"
    if tried.clicks and tried.own_items >= tried.clicks / 2:
        yield (
            f"in {tried.own_items:,} of {counted(tried.clicks, 'click')} the user (from "
            f"{guess.paths.get('user_id', 'user_id')}) is the item itself"
        )
    by_name = guess.why.get("user_id") in (guessing.BY_NAME, guessing.CONFIGURED)
    if not by_name and (vectors := guessing.vectors(found)):
        yield f"it holds vectors ({', '.join(vectors)}), and no field is named after a user"


def _unused(bad: list[tuple[Message, Bad]]) -> dict[str, Unused]:
    counts = Counter(one.reason for _, one in bad)
    firsts = {one.reason: (message, one) for message, one in reversed(bad)}
    out = {}
    for reason, count in counts.most_common():
        message, one = firsts[reason]
        where = f"{message.topic()}[{message.partition()}]@{message.offset()}"
        where += "" if one.part is None else f", click {one.part}"
        out[reason.value] = Unused(count, one.message, where, text_of(one.value))
    return out


def text_of(value: object) -> str:
    """A sample as it is written, in JSON where it was a value, cut to what fits in a line.

    >>> text_of(b'{"a": 1}'), text_of("7"), text_of(b"\\xff")
    ('{"a": 1}', '"7"', "b'\\\\xff'")
    """
    try:
        if isinstance(value, bytes):
            return cut(value.decode(), 80)
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()  # half of a pair is no text
        return cut(text, 80)
    except (UnicodeError, ValueError, TypeError, RecursionError):
        return short(value)


def _seen(one: Field, clicks: int) -> Seen:
    example = text_of(one.values[0]) if one.values else ""
    share = round(one.present / clicks, 3)
    return Seen(one.path, one.types, share, one.distinct, example)
