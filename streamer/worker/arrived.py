"""What came from the topics that workers write to, sorted by what a state folder does with it."""

from collections.abc import Mapping, Sequence

from confluent_kafka import Message

from core.rows import is_packed, version_of
from streamer.kafka.clients import Partition
from streamer.settings.sections import Config
from streamer.state import records, users
from streamer.state.commits import Mark, mark_of
from streamer.state.model_state import is_of_worker, order
from streamer.state.store import Store
from streamer.worker.kept import cut_in, is_newer, is_of_user, version_in
from streamer.worker.later import Later
from streamer.worker.sequence import Commits
from streamer.worker.strangers import Strangers

Entries = dict[bytes, bytes | None]
MANY = records.SESSIONS, records.VERSION
"""What there are so many of that one is not parsed where this worker has applied it itself."""


class Arrived:
    """The records of one look, each taken in the order in which it stands in its partition. What no
    worker wrote goes to the `strangers`, and is nowhere else."""

    def __init__(
        self, config: Config, store: Store, commits: Commits, strangers: Strangers, later: Later
    ) -> None:
        self.store, self.commits, self.strangers, self.later = store, commits, strangers, later
        self.rows: dict[bytes, Message] = {}
        self.gone: dict[bytes, int] = {}
        """Keys of rows that are deleted, with the versions of that."""
        self.meta: Entries = {}
        self.graph: Entries = {}
        self.sessions: Entries = {}
        self._users: Entries = {}
        self._of_users = config.topics.user_vectors if config.has_users else None
        # Names that the app had before count too, as the header has them.
        space = store.space if config.has_users else None
        self._apps = {config.app.name, *(space.former if space is not None else ())}
        # A version record lies behind all rows of its commit, so what it covers was applied. But
        # for this, a row that has left would be back in the folder until its tombstone is read.
        self._applied = later.versions()
        self._mark: Mark | None = None
        self._is_applied, self._is_doubtful = commits.has_applied(None), commits.is_doubtful(None)

    def families(self) -> dict[str, Entries]:
        """What goes to the folder at once, by column family."""
        out = {"meta": self.meta, "graph": self.graph, "sessions": self.sessions}
        if self._users:
            out[users.FAMILY] = dict(users.entries(self.store, self._users))
        return out

    def forgotten_after(self, listed: frozenset[bytes]) -> frozenset[bytes]:
        """The list of forgotten users as these records leave it: the same object unless it is
        another, so that who goes by it need not compare it."""
        told = {key: v for key, v in self.meta.items() if key.startswith(records.FORGOTTEN)}
        if not told:
            return listed
        new = listed.difference(told).union(key for key, v in told.items() if v is not None)
        return listed if new == listed else new

    def take(self, where: Partition, messages: Sequence[Message]) -> None:
        """Records of one partition, none of which has an error."""
        topic, partition = where
        applied = self._applied.get(partition, 0)
        for message in messages:
            key, value = message.key(), message.value()
            if key is None:
                continue
            mark = mark_of(message)
            if mark is not self._mark:  # those of one commit follow each other
                self._mark, self._is_applied = mark, self.commits.has_applied(mark)
                self._is_doubtful = self.commits.is_doubtful(mark)
            if topic == self._of_users:
                if is_of_user(self._apps, self.commits, mark, value):
                    self._users[key] = value
            elif records.is_row(key):
                self._take_row(message, key, value, mark, applied)
            elif key.startswith(records.GRAPH):
                self._take_node(partition, message, key, value, mark)
            else:
                self._take_reserved(partition, message, key)

    def _take_row(
        self, message: Message, key: bytes, value: bytes | None, mark: Mark | None, applied: int
    ) -> None:
        """A row, or its deletion, if it is newer than `applied`."""
        if self._is_applied:
            self.strangers.settle(message)
            return
        if self._is_doubtful:
            return
        if mark is None or (value is not None and not is_packed(value)):
            self.strangers.add(message)
            return
        self.strangers.settle(message)
        version = version_in(message) if value is None else version_of(value)
        if version <= applied:
            return
        if value is None:
            self.rows.pop(key, None)
            self.gone[key] = version
        else:
            self.gone.pop(key, None)
            self.rows[key] = message

    def _take_node(
        self, partition: int, message: Message, key: bytes, value: bytes | None, mark: Mark | None
    ) -> None:
        """A row of the graph, or its deletion. There are very many: each is unpacked once."""
        if self._is_doubtful:
            return
        if self._is_applied:
            self.strangers.settle(message)
            return
        if (cut := cut_in(message, value, mark)) is None:
            self.strangers.add(message)
            return
        self.strangers.settle(message)
        # Where none should be, a repair deletes what no worker wrote.
        if value is None and not self._is_in_place(key, partition):
            return
        item = key.removeprefix(records.GRAPH)
        if is_newer(self.store, item, cut):
            self.graph[item] = value

    def _take_reserved(self, partition: int, message: Message, key: bytes) -> None:
        value = message.value()
        if records.is_malformed(key):
            self.strangers.settle(message)
            if value is not None:
                self.strangers.add(message)
            else:  # a folder of an older version may have it
                self.meta[key] = None
            return
        if key.startswith(records.FORGOTTEN):
            self.meta[key] = value
            return
        if self._is_doubtful:
            return
        if self._is_applied and key.startswith(MANY):
            self.strangers.settle(message)
            return
        is_in_place = self._is_in_place(key, partition)
        if not is_of_worker(message) or (value is not None and not is_in_place):
            self.strangers.add(message)
            return
        self.strangers.settle(message)
        if not is_in_place:
            return  # a repair has deleted there what no worker wrote
        if records.is_manifest(key) and value is not None:
            self.commits.follow(value)
        if key.startswith(records.SESSIONS):
            self.sessions[records.SWEPT + key] = value
        elif value is None and key.startswith((records.PROGRESS, records.ITEMS)):
            self.meta[key] = None
        elif value is not None and not self._is_behind(key, value):
            self.meta[key] = value

    def _is_in_place(self, key: bytes, partition: int) -> bool:
        """Whether this is the partition where workers write a reserved key."""
        space = self.store.space
        return space is None or partition == records.place(key, space.partitions)

    def _is_behind(self, key: bytes, value: bytes) -> bool:
        """Whether the folder already has a later commit's record under this reserved key, or gets
        it next. Of headers, and of one commit's, the last counts."""
        if key == records.SPACE:
            return False
        read: Mapping[bytes, bytes | None] = self.meta if key in self.meta else self.later.meta
        stored = read[key] if key in read else self.store.meta(key)
        return stored is not None and order(key, value) < order(key, stored)
