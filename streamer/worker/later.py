"""What the tail has read of rows, and the folder gets a little later.

Other workers publish an item that is clicked much with each of their commits. What a folder gets of
that at once is written over a second later, with its places in the indices; a few seconds of it are
written once. Until then a killed worker would read them again: the folder's offsets say so.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec

from core.rows import Packed, from_values, heads
from streamer.state import records
from streamer.state.store import Store

SECONDS = 10.0
"""Nothing waits longer than that."""
MOST = 20_000
"""Rows that wait at most."""


class Later:
    """Rows, deletions, and what the folder says of how far it has them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows: dict[bytes, bytes] = {}
        self.gone: dict[bytes, int] = {}
        """Keys of rows that were deleted, with the versions of that."""
        self.meta: dict[bytes, bytes | None] = {}
        """Version counters of item partitions, manifests, and offsets."""
        self.hurry = False
        """Whether somebody waits until the folder has all."""
        self._since = 0.0

    @property
    def is_empty(self) -> bool:
        return not (self.rows or self.gone or self.meta)

    def add(
        self, rows: Mapping[bytes, bytes], gone: Mapping[bytes, int],
        meta: Mapping[bytes, bytes | None],
    ) -> None:  # fmt: skip
        """Take these, each of which is newer than what there was of its key. Nothing is of a commit
        of this worker's, which writes the folder past this."""
        if self.is_empty:
            self._since = time.monotonic()
        for key in rows:
            self.gone.pop(key, None)
        for key in gone:
            self.rows.pop(key, None)
        self.rows |= rows
        self.gone |= gone
        self.meta |= meta

    def versions(self) -> dict[int, int]:
        """As the folder's own: the versions up to which all was read of each partition."""
        found = ((key, value) for key, value in self.meta.items() if value is not None)
        return self.store.versions() | {
            int(key.removeprefix(records.VERSION)): msgspec.msgpack.decode(value, type=int)
            for key, value in found if key.startswith(records.VERSION)
        }  # fmt: skip

    def written(self, keys: Sequence[bytes]) -> Packed:
        """The newest of the rows under these keys, as far as they were read."""
        found = {key: self.rows.get(key) or self.store.row(key) for key in keys}
        there = {k: v for k, v in found.items() if v is not None and k not in self.gone}
        return list(there), from_values(list(there.values()), self.store.dtype)

    @property
    def is_due(self) -> bool:
        late = time.monotonic() - self._since > SECONDS or len(self.rows) > MOST
        return not self.is_empty and (late or self.hurry)

    def flush(self) -> None:
        """Give the folder all that waits, in one batch."""
        keys, values = list(self.rows), list(self.rows.values())
        self.store.write(
            keys=keys, rows=heads(values, self.store.dtype) if keys else None, values=values,
            gone=list(self.gone.items()), families={"meta": list(self.meta.items())},
        )  # fmt: skip
        self.rows, self.gone, self.meta = {}, {}, {}
