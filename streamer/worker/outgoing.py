"""What leaves with a commit beside the rows: evidence, a part of the sweeps, and what is marked."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

import msgspec

from core.engine import Engine
from core.graph.graph import NEVER
from core.graph.slabs import TOPIC
from core.ids.vocabulary import decode, encode
from core.rounds import Changes, Evidence, Gone
from streamer.decode.ahead import Window
from streamer.kafka.clients import Partition
from streamer.settings.sections import Config
from streamer.state import evidence, folded_by, packing, records
from streamer.state import store as stores
from streamer.state.records import Marks
from streamer.state.store import Store
from streamer.worker import challenging, checkpoint
from streamer.worker.batch import Batch, Pending
from streamer.worker.sweeping import as_entries

log = logging.getLogger(__name__)

CHECKPOINT_ROWS = 2000
"""Rows of the graph that a commit writes to the state folder at most, while it closes: ten
milliseconds or so."""
CHUNK = 20_000
"""Rows that are written at a time at a stop."""
FOLDER_SECONDS = 12.0
"""How long the graph may take to be written at a stop, of the 30 s that supervisors give it."""
SWEPT_ROWS = 500
"""Records of graph and sessions that a commit writes to `model-state` at most."""
BYTES_A_CLICK = 20
"""So much of them leaves for each click: a sweep is over when clicks have paid for it."""
LEAST_BYTES = 2000
"""So much of them leaves with a commit that has few clicks."""
SLOW_SECONDS = 3600.0
"""A sweep that takes longer goes on faster, so that it is over long before `transitions` ends."""
OLD_EPOCHS = 100
"""Epochs whose centroids leave with a commit at most."""
IDLE_SECONDS = 60.0
"""Where no click came for so long, a sweep goes on by itself until it is over."""
FAST_BYTES = 1_000_000
"""What leaves of it with each commit then."""


class Outgoing:
    """Makes the batches of one worker."""

    def __init__(
        self, config: Config, store: Store, engine: Engine, end: Callable[[], int], last: int,
        gone: Mapping[str, int],
    ) -> None:  # fmt: skip
        """`last` is the number of the newest evidence in `transitions`, and `end` tells an offset
        of it behind which evidence of the next ones will be. `gone` is as in `Refolded`."""
        self.config, self.store, self.engine, self.end = config, store, engine, end
        self.evidence = last
        """The number of the newest evidence that is in the engine."""
        self._folds_by = folded_by.folds_by(engine.settings, config.round.max_seconds == 0)
        self._is_new = store.marks.folds_by not in (None, self._folds_by)
        self._is_new |= store.marks.folds_next is not None
        """Whether the marks say that clicks are, or will be, folded otherwise: others would go by
        that."""
        others = folded_by.fold_unlike(self._folds_by, store.marks)
        self.changes = bool(others) and engine.clock.time != NEVER
        """Whether what was folded by other settings is not all in `model-state` yet: until it is,
        no more is folded, as a restart would fold it by these."""
        if self.changes:
            log.info(
                "clicks are folded otherwise from now on (%s): they wait until %s has all that was "
                "folded before", ", ".join(others), config.topics.model_state,
            )  # fmt: skip
        self._changes_at = last
        """The newest evidence of those settings."""
        self.is_alone = self.leads = True
        """Whether no other worker writes evidence, and whether this one owns item partition 0: who
        does writes what there is once, of graph, sessions, ranker and marks."""
        self.again: list[tuple[int, list[Evidence]]] = []
        """Evidence of commits before, with their numbers, that leaves with the next one."""
        self.needs_folder = store.marks.needs_folder
        self.publishes_users: Callable[[], bool] = lambda: False
        """Whether users have not left that are published once more."""
        self.topic = checkpoint.of(store, engine, records.SWEPT)
        self.folder = checkpoint.of(store, engine, stores.POINTER)
        if self.needs_folder:
            engine.graph.changed[engine.graph.last_seen != NEVER] |= TOPIC
        self.dead: list[Gone] = []
        """Tombstones that still have to leave, of what Kafka has and the model has not."""
        self._is_swept_since = False
        """Whether a sweep is over that began after everything began to leave once more."""
        self._gone = {encode(name): number for name, number in gone.items()}
        """Items that left, and the number of the evidence that says so, as long as their rows of
        the graph may be in the topic."""
        self._left: set[bytes] = set()
        """Those that left since the last commit."""
        self._promoted: bytes | None = None
        """That a challenger took over, where the next commit is to say so once more."""
        self._voids = challenging.is_void(engine.settings, store.promoted)
        """Whether the next commit is to say that it does not count that one took over before."""
        self._centroids_from = store.marks.centroids_from
        """As in `Marks`, with the last commit."""
        self._trials = 0
        """What the ranker had learned from with the last commit that said so."""
        self._clicked = time.monotonic()
        self._allowance = 0
        """Bytes that may leave with the next commit."""

    @property
    def tombstones(self) -> int:
        """How many of `dead` leave with the next commit."""
        return min(len(self.dead), self.config.commit.max_records // 4)

    @property
    def has_work(self) -> bool:
        """Whether commits are to be made without clicks: tombstones, or a sweep that is idle."""
        if self.dead or (self.needs_folder and self.topic.is_under_way):
            return True
        if self._is_new or self.changes:
            return True
        if self._voids and self.leads:
            return True
        is_idle = time.monotonic() - self._clicked > IDLE_SECONDS
        return is_idle and (
            (self.leads and self.topic.lags(self.evidence))
            or self.folder.is_under_way
            or (self._folder_is_due and self.folder.lags(self.evidence))
        )

    @property
    def lacks_counts(self) -> bool:
        """Whether ids are counted, and a restart would not know how often."""
        swept = checkpoint.newest(self.store)
        counts = self.engine.catalogue.admission.is_on
        return counts and (swept is None or swept[1].counted is None)

    @property
    def _folder_is_due(self) -> bool:
        return time.monotonic() - self.folder.ended >= self.config.checkpoint.seconds

    def publish_all(self, dead: list[Gone] | None = None) -> None:
        """Let everything leave once more, as there is room for it: rows, vectors, graph, sessions.

        `dead` are tombstones that leave too. Until all is out the folder cannot be made anew.
        """
        self.engine.publish_all()
        self.dead += dead or []
        self.needs_folder = True
        self.store.set_meta({stores.HOLDS_ALL: b"\x01"})
        self._is_swept_since = False
        self._promoted = self.store.meta(records.PROMOTED)
        self.topic = checkpoint.of(self.store, self.engine, records.SWEPT)

    def batch(
        self, number: int, changes: Changes, pending: Pending, offsets: Mapping[Partition, int],
        windows: Mapping[int, Window],
    ) -> Batch:  # fmt: skip
        """All that leaves with this commit. The engine is as it was after its last round."""
        if pending.events:
            self._clicked = time.monotonic()
        packed: list[bytes] = []
        if self.is_alone:
            again, self.again = self.again, []
            for commit, rounds in (*again, (number, pending.evidence)):
                if told := list(evidence.pack(commit, self.evidence, rounds)):
                    packed, self.evidence = packed + told, commit
                    pending.traced += [(commit, record) for record in told]
            self.note_gone(pending.evidence, self.evidence)
        else:
            undecided = evidence.UNDECIDED
            packed = list(evidence.pack(undecided, undecided, pending.evidence))
        dead, self.dead = self.dead[: self.tombstones], self.dead[self.tombstones :]
        # What was clicked since it was found lives again.
        changes.gone.extend(gone for gone in dead if decode(gone.key) not in self.engine.vocabulary)
        at = self.end()
        cut = self.evidence
        if self.leads:
            self.topic.begin(cut, at, cut)
        self._allowance += max(BYTES_A_CLICK * pending.events, LEAST_BYTES)
        size = self._allowance = min(self._allowance, FAST_BYTES)
        is_slow = time.monotonic() - self.topic.began > SLOW_SECONDS
        if is_slow or not pending.events or self.needs_folder:
            size = max(size, FAST_BYTES)
        swept = self.topic.take(cut, SWEPT_ROWS, size)
        # A part of the sessions may be more than there was room for: later commits make up for it.
        self._allowance -= swept.size
        if self._folder_is_due:
            self.folder.begin(cut, at, cut)
        written = self.folder.take(cut, CHECKPOINT_ROWS, checkpoint.ALL)
        self._settle(number, changes, swept.swept is not None)
        if self.changes and not self.topic.lacks(self._changes_at):
            self.changes = False
            log.info("by commit %d all is there that was folded by other settings", number)
        major, old_epochs = self.engine.starts.major, self._old_epochs(changes)
        marks = Marks(
            number, self.engine.publish_from, None if major is None else (major[0], major[1]),
            cut, self.needs_folder or self.publishes_users(), self._folds_by, self._centroids_from,
        )  # fmt: skip
        if self.changes:
            before = self.store.marks.folds_by
            marks = msgspec.structs.replace(marks, folds_by=before, folds_next=self._folds_by)
        trials = self.engine.fusion.trials
        fusion = None
        if self.leads and trials != self._trials:
            fusion = packing.pack_fusion(self.engine.fusion, self.engine.settings)
        self._trials = trials
        self._is_new = False
        voids, self._voids = self._voids and self.leads, self._voids and not self.leads
        promoted = challenging.record(self.config, self.engine, number, changes, voids)
        promoted, self._promoted = promoted or self._promoted, None
        left, unwritten = self._dead(changes)
        return Batch(
            number, cut, changes, dict(offsets), self.engine.round_number,
            marks if self.leads else None, packed, self.is_alone, pending.traced, left, unwritten,
            swept, written, pending.dead_letters, pending.described, pending.items, windows, fusion,
            promoted=promoted, old_epochs=old_epochs,
        )  # fmt: skip

    def _old_epochs(self, changes: Changes) -> range:
        """Those whose centroids leave, as no vector names them any more. What a repair has not
        deleted yet may name any."""
        first = last = self._centroids_from
        if not (self.dead or self.needs_folder):
            last = max(first, min(changes.oldest_epoch, first + OLD_EPOCHS))
        self._centroids_from = last
        return range(first, last)

    def _settle(self, number: int, changes: Changes, swept: bool) -> None:
        """Notice when all has left that was to leave once more."""
        if not self.needs_folder:
            return
        self._is_swept_since |= swept or self.engine.clock.time == NEVER  # there is no graph yet
        if self._is_swept_since and not changes.stale and not self.dead:
            self.needs_folder = False
            log.info("everything was published again by commit %d", number)

    def note_gone(self, rounds: Iterable[Evidence], number: int) -> None:
        """Evidence of this number says that items left."""
        gone = {encode(name): number for one in rounds for name in one.gone}
        self._gone |= gone
        self._left |= gone.keys()

    def _dead(self, changes: Changes) -> tuple[list[bytes], list[bytes]]:
        """The items whose rows of the graph leave the folder with this commit, and the topic.

        Whether one was ever written, no restart can know. What its owner has deleted of an item may
        be written again by a sweep that has not come so far: so the sweeper alone deletes.
        """
        here, self._left = self._left | {one.key for one in changes.gone}, set()
        there: set[bytes] = set()
        if self.leads:
            there, self._gone = here | self._gone.keys(), {}
        elif self._gone:
            known = self.store.marks.evidence
            self._gone = {key: number for key, number in self._gone.items() if number > known}
        is_alive = self.engine.vocabulary.__contains__
        left, unwritten = (
            sorted(key for key in dead if records.is_item(key) and not is_alive(decode(key)))
            for dead in (here, there)
        )
        return left, unwritten

    def lead(self, leads: bool) -> None:
        """Begin or cease to write what there is once."""
        if self.leads and not leads:
            self.topic.end()
        elif leads and not self.leads:
            self.topic = checkpoint.of(self.store, self.engine, records.SWEPT)
            self._centroids_from = self.store.marks.centroids_from
        self.leads = leads

    def write_folder(self) -> None:
        """Write all that the folder does not have yet of graph and sessions.

        It ends in time for the stop to be a clean one: what is left follows from the evidence.
        """
        at, until = self.end(), time.monotonic() + FOLDER_SECONDS
        for _ in range(2):  # the end of the one that is under way, and another from its beginning
            self.folder.begin(self.evidence, at)
            while self.folder.is_under_way:
                if time.monotonic() > until:
                    log.info(
                        "%s: not all of the graph could be written in %.0f s: the next start folds "
                        "what came since it was written last", self.store.path, FOLDER_SECONDS,
                    )  # fmt: skip
                    return
                written = self.folder.take(self.evidence, CHUNK, checkpoint.ALL)
                self.store.write_entries(as_entries(written, stores.POINTER))
