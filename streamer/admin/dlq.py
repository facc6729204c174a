"""`walkstream dlq`: look through the dead letters, and send back those that are good by now."""

import heapq
import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace

import msgspec
from confluent_kafka import KafkaException, Producer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from streamer.admin.letters import Filter, Letter, Log, iso, printable
from streamer.decode import deadletter
from streamer.decode.events import Decoder, Invalid, decode_item
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, rights
from streamer.kafka.clients import ANY, CALL_SECONDS
from streamer.kafka.failures import FORBIDDEN, Forbidden
from streamer.settings.sections import Config
from streamer.state.records import REPLAYED_FROM, SOURCE
from streamer.terminal import Console
from streamer.wording import counted

SHOWN_BYTES = 200
MOST_TRANSACTION_MS = 900_000
"""Brokers allow no more by default (`transaction.max.timeout.ms`)."""


@dataclass
class Count:
    """Letters of a kind."""

    letters: int
    first: int
    """Times of the oldest and the newest in ms."""
    last: int


@dataclass
class Tally:
    """How many letters there are by reason and by the partition that the records came from."""

    counts: dict[tuple[str, str, str], Count] = field(default_factory=dict)

    def add(self, letter: Letter) -> None:
        group = letter.reason, letter.source_topic, letter.source_partition
        count = self.counts.setdefault(group, Count(0, letter.time, letter.time))
        count.letters += 1
        count.first, count.last = min(count.first, letter.time), max(count.last, letter.time)

    def adding(self, letters: Iterator[Letter]) -> Iterator[Letter]:
        for letter in letters:
            self.add(letter)
            yield letter

    @property
    def total(self) -> int:
        return sum(count.letters for count in self.counts.values())

    @property
    def newest(self) -> int:
        """The time in ms of the newest letter of all, 0 if there is none."""
        return max((count.last for count in self.counts.values()), default=0)

    def table(self) -> Table:
        """One row for each topic that records came from, which fits in a terminal of 80 columns."""
        table = Table(box=SIMPLE_HEAD)
        table.add_column("came from", overflow="fold")
        table.add_column("letters", justify="right", no_wrap=True)
        table.add_column("first and last", no_wrap=True)
        table.add_column("reasons", overflow="fold")
        for topic in sorted({topic for _, topic, _ in self.counts}):
            counts = [(r, c) for (r, there, _), c in self.counts.items() if there == topic]
            reasons: Counter[str] = Counter()
            for reason, count in counts:
                reasons[reason] += count.letters
            times = min(count.first for _, count in counts), max(count.last for _, count in counts)
            cells = (
                printable(topic),
                f"{reasons.total():,}",
                "\n".join(iso(ms, "seconds") for ms in times),
                "\n".join(f"{printable(r)} {n:,}" for r, n in reasons.most_common()),
            )
            table.add_row(*map(escape, cells))
        return table

    def print_json(self) -> None:
        for (reason, topic, partition), count in sorted(self.counts.items()):
            line = {"error.class": reason, "source.topic": topic, "source.partition": partition}
            numbers = {"letters": count.letters, "first": iso(count.first)}
            print(msgspec.json.encode({**line, **numbers, "last": iso(count.last)}).decode())


def show(config: Config, wanted: Filter, limit: int, summary: bool, as_json: bool) -> None:
    """Print the newest `limit` letters, the newest last, and how many there are of which kind.

    With `summary`, only the latter. As JSON, a line for each letter, or for each kind.
    """
    tally = Tally()
    with rights.allowed(config, "dlq list"), closing(Log(config, wanted)) as log:
        letters = tally.adding(log.read("reading"))
        shown = heapq.nlargest(1 if summary else limit, letters, Letter.age)
    if not summary:
        for letter in reversed(shown):
            print(letter.as_json().decode() if as_json else _lines(letter))
    if as_json:
        if summary:
            tally.print_json()
    elif tally.total:
        print(f"dead letters: {tally.total:,}")
        Console().print(tally.table())
    else:
        print(f"{config.topics.dead_letters}: {_none(wanted)}")


def resend(config: Config, wanted: Filter, bad_too: bool, dry_run: bool) -> None:
    """Send letters back to the topics they came from, key and value as they were: all or none.

    Letters that were cut stay, and so do those that are still bad by the settings in force, unless
    `bad_too`. Refused, before anything is sent, if one came from a topic that is neither
    `topics.clicks` nor `topics.items`.
    """
    plan, cut, bad = Tally(), 0, 0
    chosen = _Choice(config, bad_too)
    command = "dlq list" if dry_run else "dlq replay"
    with rights.allowed(config, command), closing(Log(config, wanted)) as log:
        for letter in log.read("choosing"):
            if letter.cut:
                cut += 1
            elif chosen(letter):
                plan.add(letter)
            else:
                bad += 1
        left = []
        if cut:
            left.append(f"cut, because they were too long, and never sent: {cut:,}")
        if bad:
            left.append(f"still bad, or left out, by the settings in force, so they stay: {bad:,}")
        if not plan.total:
            print(f"nothing to send: {'; '.join(left) or _none(wanted)}")
            return
        _check_topics(config, plan)
        if not dry_run:
            _transact(config, plan.total, log, chosen)
    print(f"dead letters {'to send' if dry_run else 'sent'}: {plan.total:,}")
    Console().print(plan.table())
    for line in left:
        print(line)
    if dry_run:
        print("nothing was sent: leave out --dry-run to send them")
        return
    print(
        f"to leave these out next time: --since {iso(plan.newest + 1)}\n"
        "Sent once more, a click counts once more"
    )


class _Choice:
    """Whether a letter is sent: good by the settings in force, or any with `bad_too`."""

    def __init__(self, config: Config, bad_too: bool) -> None:
        self._bad_too, self._config = bad_too, config
        self._decoder = Decoder(config.clicks, config.events, config.registry)

    def __call__(self, letter: Letter) -> bool:
        if letter.cut:
            return False
        if self._bad_too or letter.source_topic not in (
            self._config.topics.clicks, self._config.topics.items,
        ):  # fmt: skip
            return True
        if letter.source_topic == self._config.topics.items:
            try:
                decode_item(letter.key, letter.value, self._config.items.use)
            except Invalid:
                return False
            return True
        now = int(time.time() * 1000)
        decoded = self._decoder([letter.key], [letter.value], [now])
        return len(decoded.clicks) > 0


def _check_topics(config: Config, plan: Tally) -> None:
    known = config.topics.clicks, config.topics.items
    for _, topic, _ in plan.counts:
        if topic not in known:
            raise Refused(
                f"nothing was sent: of {counted(plan.total, 'dead letter')}, some came from "
                f"{printable(topic)}, which is neither topics.clicks ({known[0]}) nor "
                f"topics.items ({known[1]}). Leave them out by a filter, or name that topic in "
                "section [topics]"
            )


def _transact(config: Config, letters: int, log: Log, chosen: _Choice) -> None:
    """All chosen letters of the log in one transaction. WalkstreamError if it was not committed."""
    # An open transaction holds back every reader of the clicks, so it gets no more time than a slow
    # broker needs.
    longest = min(MOST_TRANSACTION_MS, 60_000 + letters)
    properties = {"queue.buffering.max.kbytes": 65_536} | config.kafka
    # No worker has this name, so no worker's transactions are touched.
    app = replace(config.app, instance="")
    own = replace(config, app=app, kafka=properties | {"transaction.timeout.ms": longest})
    producer = clients.producer(own)
    # The timestamp is part of the click where a click takes its time from its record.
    stamped = config.clicks.fields["ts"] == "@timestamp"
    try:
        topics = producer.list_topics(timeout=CALL_SECONDS).topics
        producer.init_transactions(CALL_SECONDS)
        producer.begin_transaction()
        for letter in log.read("sending"):
            if chosen(letter):
                if letter.source_topic not in topics:
                    raise Refused(
                        f"nothing was sent: topic {letter.source_topic}, which dead letters came "
                        "from, is not there"
                    )
                _produce(producer, letter, stamped, topics[letter.source_topic].partitions)
    except BaseException as failed:
        with suppress(KafkaException):
            producer.abort_transaction(CALL_SECONDS)
        if isinstance(failed, KeyboardInterrupt):
            raise WalkstreamError("interrupted: nothing was sent") from None
        if isinstance(failed, KafkaException):
            raise _not_sent(failed) from failed
        raise
    try:
        # Without a time-out of its own it waits as long as the transaction may take.
        producer.commit_transaction()
    except KafkaException as failed:
        if failed.args[0].retriable():
            raise WalkstreamError(
                f"whether anything was sent is not known ({failed.args[0].str()}): look for "
                f"records with the header {REPLAYED_FROM} before you try again"
            ) from failed
        with suppress(KafkaException):
            producer.abort_transaction(CALL_SECONDS)
        raise _not_sent(failed) from failed


def _produce(producer: Producer, letter: Letter, stamped: bool, partitions: Container[int]) -> None:
    headers: deadletter.Headers = [(REPLAYED_FROM, letter.position.encode())]
    # By these a worker that folds old clicks anew knows whether it has the original as well.
    headers += [(name, letter.headers[name]) for name in SOURCE if name in letter.headers]
    stamp = letter.headers.get("source.timestamp", "")
    at = int(stamp) if stamped and stamp.isdecimal() else 0
    # The partition that has the user's other clicks, whichever partitioner its producer used.
    source = letter.headers.get("source.partition", "")
    where = int(source) if source.isdecimal() and int(source) in partitions else ANY
    while True:
        try:
            producer.produce(
                letter.source_topic, letter.value, letter.key, where,
                headers=headers, timestamp=at,
            )  # fmt: skip
            return
        except BufferError:
            producer.poll(0.1)


def _not_sent(failed: KafkaException) -> WalkstreamError:
    if failed.args[0].code() in FORBIDDEN:
        return Forbidden(failed.args[0], "nothing was sent")
    return WalkstreamError(
        f"nothing was sent: {failed.args[0].str()}. Look at section [kafka] and at the brokers, "
        "then try again"
    )


def _lines(letter: Letter) -> str:
    """A letter for people: one line of what it is, one of what is wrong, one of what came."""
    value = letter.value
    shown = "no value" if value is None else printable(value[:SHOWN_BYTES])
    if value is not None and len(value) > SHOWN_BYTES:
        shown += f"... ({len(value):,} bytes)"
    if letter.cut:
        shown += f" (cut: it had {printable(letter.headers['source.bytes'])} bytes)"
    what = f"{letter.reason}  {letter.source}"
    return f"{iso(letter.time)}  {printable(what)}\n    {printable(letter.message)}\n    {shown}"


def _none(wanted: Filter) -> str:
    return "there are no dead letters" if wanted == Filter() else "no dead letter fits the filters"
