"""What a worker learns between two commits.

Alone it folds its clicks at once, and says what they did. Beside others it says what came to it,
and learns what the log says, which has the clicks of all in one order.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from core.clicks import Clicks
from core.engine import RECORDS_OF_GONE, SHARE_OF_GONE, Engine
from core.rounds import ANY_TIME, Changes, Evidence, Inputs, Outputs
from streamer.admin import forget
from streamer.decode.ahead import Window
from streamer.decode.deadletter import DeadLetter
from streamer.decode.events import Decoded
from streamer.decode.guarded import GuardedDecoder
from streamer.kafka import unreadable
from streamer.settings.sections import Config
from streamer.watch.health import Health
from streamer.watch.metrics import Metrics
from streamer.worker.batch import Pending
from streamer.worker.budget import Budget
from streamer.worker.outgoing import Outgoing
from streamer.worker.reader import Reader, columns, placed
from streamer.worker.report import Report
from streamer.worker.shares import Shares
from streamer.worker.tail import Tail
from streamer.worker.told import Log, Told
from streamer.worker.users import Users

SHARE_OF_ITEMS = 6
"""A commit takes in so many items of the catalogue that they fill at most twice this part of it."""
OTHERS = 1000
"""Records that a commit keeps free for what is no row: progress, versions, evidence, and those of
the graph."""

Attributes = list[tuple[str, Sequence[str] | None]]
"""Items with their attribute tokens, None for one that is retired."""


class Rounds:
    """Takes records of the clicks into the engine, and keeps what is to be committed of them."""

    def __init__(self, config: Config, metrics: Metrics, health: Health) -> None:
        self.config, self.metrics, self.health = config, metrics, health
        self.by_count = config.round.max_seconds == 0
        self.pending = Pending()
        self.decoder = GuardedDecoder(config.clicks, config.events, config.registry, health.beat)
        self.forgotten = frozenset[bytes]()
        """Keys of the users whose clicks do not count, as the rounds know them."""
        self.budget = Budget(config)
        self.recent: dict[bytes, bytes | None] = {}
        """Items that were taken in with commits which the folder does not have yet, as JSON."""
        self.leaving: set[str] = set()
        """Items that leave by evidence of this worker's which is not folded yet."""
        self.users: Users | None = None
        """Those whose vectors are published, if any are."""
        self.newest_stamp = -1
        """Greatest record timestamp of the clicks so far, ms."""

    def begin(
        self, engine: Engine, tail: Tail, reader: Reader, shares: Shares, told: Log,
        outgoing: Outgoing, report: Report, admin: AdminClient, join: Callable[[], None],
    ) -> None:  # fmt: skip
        """Go on with these, once the model is restored. `join` waits for the commit under way."""
        self.engine, self.tail, self.reader, self.shares = engine, tail, reader, shares
        self.told, self.outgoing, self.report = told, outgoing, report
        self.admin, self.join = admin, join

    @property
    def has_to_learn(self) -> bool:
        """Whether the log has more than a round of clicks, so that no more should be told."""
        if self.shares.is_alone or not self.told.has_more:
            return False
        return self.told.waiting >= self.config.round.max_events

    def take(self, messages: list[Message], closes: bool) -> Changes | None:
        """Take the records of a round; what leaves, if it closes a commit.

        Records that carry many clicks make several rounds; no commit may close between them, as
        offsets count records.
        """
        with self.metrics.timed("decode"):
            messages, decoded, forgotten = self._decode_what_fits(messages)
        pending = self.pending
        self.newest_stamp = max([self.newest_stamp, *(m.timestamp()[1] for m in messages)])
        attributes: Attributes = []
        if not pending.rounds:
            pending.since = time.monotonic()
            attributes = [] if self.shares.is_settling else self._take_items()
        self.report.read(messages, decoded, forgotten)
        self.report.dead_lettered(self.config.topics.clicks, decoded.bad)
        if decoded.bad:
            bound = self.config.dlq.stop_ratio
            self.health.dead_letters.check(bound, decoded.bad[-1].message)
        pending.dead_letters += [DeadLetter.of(messages[bad.record], bad) for bad in decoded.bad]
        self.shares.offsets |= self.reader.after(messages)
        clicks = placed(decoded, messages)
        if self.users is not None:
            self.users.add(clicks)
        if self.shares.is_alone:
            return self._learn(clicks, attributes, closes)
        self._tell(clicks, attributes)
        return self._learn_told(attributes, closes)

    def _decode_what_fits(
        self, messages: list[Message]
    ) -> tuple[list[Message], Decoded, int]:  # fmt: skip
        """These records, as far as a commit has room for their users, as `_decode` has them. The
        others are put back."""
        if self.users is None:
            return messages, *self._decode(messages)
        before = self.decoder.windows
        decoded, forgotten = self._decode(messages)
        fits = self.users.fitting(decoded.clicks, decoded.records, len(messages))
        if fits == len(messages):
            return messages, decoded, forgotten
        first = {message.partition() or 0: Window() for message in messages}
        self.decoder.remember({**first, **before})
        self.reader.put_back(messages[fits:])
        messages = messages[:fits]
        return messages, *self._decode(messages)

    def _decode(self, messages: list[Message]) -> tuple[Decoded, int]:
        """What is in these records, and how many clicks of forgotten users were left out of it."""
        partitions = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        decoded = self.decoder(*columns(messages), partitions)
        if decoded.bad:
            decoded = replace(decoded, bad=unreadable.named(messages, decoded.bad))
        kept = forget.kept(decoded.clicks.users, self.config.app.name, self.tail.forgotten)
        if kept is None:
            return decoded, 0
        clicks, records = decoded.clicks.at(kept), decoded.records[kept]
        left_out = len(decoded.clicks) - len(clicks)
        return replace(decoded, clicks=clicks, records=records), left_out

    # -- alone -----------------------------------------------------------------------------------

    def _learn(self, clicks: Clicks, attributes: Attributes, closes: bool) -> Changes | None:
        """Take clicks at once, and keep what they did."""
        pending, changes = self.pending, None
        parts = clicks.parts(self.config.round.max_events)
        for number, part in enumerate(parts, 1):
            inputs = Inputs(
                part, attributes, self._forgotten(), closes and number == len(parts),
                self._room(), int(self.budget), self._now(),
            )  # fmt: skip
            outputs = self._step(inputs)
            attributes = []
            pending.rounds += 1
            pending.events += outputs.events
            pending.evidence.append(outputs.evidence)
            changes = outputs.changes
        return changes

    # -- beside others ---------------------------------------------------------------------------

    def _tell(self, clicks: Clicks, attributes: Attributes) -> None:
        """Keep what came to this worker; and what leaves, which one of all decides."""
        gone, forgotten = dict[str, int](), list[str]()
        if self.shares.leads and not self.shares.is_settling:
            retired = [(item, None) for item, tokens in dict(attributes).items() if tokens is None]
            room = max(0, self._room() - RECORDS_OF_GONE * SHARE_OF_GONE * len(self.leaving))
            gone = self.engine.gone(Inputs(Clicks.empty(), retired, room=room))
            self.leaving |= gone.keys()
            forgotten = self._forgotten()
        told = Evidence(0, gone, forgotten, clicks, {})
        if told:
            self.pending.evidence.append(told)

    def _learn_told(self, attributes: Attributes, closes: bool) -> Changes | None:
        """Learn what the log says, about as much as makes a round: at once if it is so much, and
        else when a commit closes, before which no vector leaves."""
        self.pending.rounds += 1
        self._describe(attributes)
        learned, told = 0, list[Told]()
        if not closes and not self.has_to_learn:
            return None
        while learned < self.config.round.max_events and (one := self.told.next()) is not None:
            learned += one.clicks
            told.append(one)
        self._fold(told)
        if not closes:
            return None
        inputs = Inputs(
            Clicks.empty(), room=self._room(), budget=int(self.budget), now=self._now(),
            is_told=True,
        )  # fmt: skip
        return self._step(inputs).changes

    def _fold(self, told: Sequence[Told]) -> None:
        """Learn from records of the log: in one step what nothing comes between. Who leads ranks
        a sample of all clicks, as one worker would, and counts them."""
        parts: list[list[Evidence]] = []
        for one in told:
            if one.mark.instance == self.config.app.instance:
                self.report.heard(one.mark.number)
            self.report.newest[self.told.where] = one.stamp
            self.outgoing.evidence = one.number
            self.outgoing.note_gone(one.rounds, one.number)
            self.pending.traced += [(one.number, record) for record in one.packed]
            for happened in one.rounds:
                if happened.gone or happened.forgotten or not parts:
                    parts.append([])
                parts[-1].append(happened)
        for first, *more in parts:
            clicks = Clicks.joined([first.clicks, *(one.clicks for one in more)])
            inputs = Inputs(
                clicks, forgotten=first.forgotten, closes_commit=False, is_told=True,
                gone=first.gone, ranks=self.shares.leads,
            )  # fmt: skip
            outputs = self._step(inputs)
            self.pending.events += outputs.events if self.shares.leads else 0
            # What was retired, and described once more, may have been read before this was told.
            retired = [item for item, since in first.gone.items() if since == ANY_TIME]
            known = [(item, self.engine.catalogue.attributes(item)) for item in retired]
            self._describe([(item, tokens) for item, tokens in known if tokens])
            self.leaving -= first.gone.keys()

    def _describe(self, described: Attributes) -> None:
        """Give items their attributes; those that are retired, and nobody clicked, leave."""
        if described:
            self._step(Inputs(Clicks.empty(), described, closes_commit=False, is_told=True))

    def _step(self, inputs: Inputs) -> Outputs:
        self.health.beat()
        outputs = self.engine.step(inputs)
        self.report.learned(outputs, self.shares.leads)
        return outputs

    # -- what else goes into a round -------------------------------------------------------------

    def _take_items(self) -> Attributes:
        """The items of the catalogue that this commit takes in. By count it takes those that are
        dated before its first clicks end, whoever read them when."""
        until = None
        if self.by_count:
            self.join()
            self.tail.read_items(self.admin)
            until = self.newest_stamp
        pending = self.pending
        taken = self.tail.take(self.config.commit.max_records // SHARE_OF_ITEMS, until)
        if taken:
            pending.items = self.tail.items_offsets()
        letters = [one.letter for one in taken if one.letter is not None and self.shares.leads]
        self.report.dead_lettered(self.config.topics.items, [letter.bad for letter in letters])
        pending.dead_letters += letters
        news = [one for one in taken if one.letter is None]
        pending.described |= {one.item.encode(): one.value for one in news}
        self.recent |= pending.described
        return [(one.item, one.tokens) for one in news]

    def _forgotten(self) -> list[str]:
        """The users with open sessions that were put on the list since the last look."""
        if self.forgotten is self.tail.forgotten:
            return []
        self.forgotten = self.tail.forgotten
        return forget.among(self.config.app.name, self.engine.sessions.users, self.forgotten)

    def _room(self) -> int:
        """Records that are left for rows, vectors and tombstones."""
        most = self.config.commit.max_records - OTHERS - len(self.pending.dead_letters)
        most -= 0 if self.users is None else self.users.most
        return max(0, most - RECORDS_OF_GONE * self.outgoing.tombstones)

    def _now(self) -> int | None:
        """What `publish.min_interval` goes by; by count the time of the clicks."""
        return None if self.by_count else int(time.time() * 1000)
