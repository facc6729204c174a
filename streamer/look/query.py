"""Neighbours of an item, from its LSH buckets, ranked by the published vectors.

The vectors are those that readers of `item-vectors` have, and that the buckets were computed from:
a row that learned since by less than `publish.min_drift` is still found where it was published.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.clusters import NONE, unit_rows
from core.placement import Placement, Placer, features
from core.rows import from_values
from core.settings import LshSettings, ModelSettings, Settings
from core.vocabulary import encode
from streamer import records
from streamer.errors import WalkstreamError
from streamer.store import Store, is_item, open_for_reading

Mode = Literal["similar", "next"]

ENOUGH = 1500
"""Candidates after which no further bucket is probed."""

PROBES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 1024)
"""Keys of each table that are probed until there are enough; the last only while fewer than k were
found, and after it every row is read.

With 8 tables of 12 bits this finds .96 to .99 of the true ten nearest. On a shop of 34,000 items
about 18 keys a table give ENOUGH candidates. On shops of 2,900 and 4,700, where most buckets are
empty, it takes all 192, after which reading every row is as fast."""

Attributes = dict[str, str | list[str]]


class Neighbour(msgspec.Struct, frozen=True):
    item: str
    score: float
    cluster: int | None
    updates: int
    """Times it was learned from, since it came."""
    attributes: Attributes


class Answer(msgspec.Struct, frozen=True):
    """The nearest items, best first, and how many items were compared for them."""

    item: str
    mode: Mode
    candidates: int
    neighbours: list[Neighbour]


class Index:
    """Searches an open state folder, which another thread may be writing to."""

    def __init__(self, store: Store) -> None:
        space = store.space
        if space is None:
            raise WalkstreamError(f"{store.path}: nothing was learned yet, so there is no vector")
        self.store, self.dim = store, space.dim
        hashing = LshSettings(
            space.lsh_family,  # type: ignore[arg-type]
            space.lsh_tables,
            space.lsh_bits,
            space.lsh_width,
        )
        model = ModelSettings(dim=space.dim, seed=space.seed)
        self.lsh = Placer(Settings(model=model, lsh=hashing)).lsh

    def neighbours(self, item: str, k: int, mode: Mode, min_updates: int = 0) -> Answer:
        """The k items that score best, of those with so many updates; fewer only if there are none.

        With unit rows V^ and U^, "similar" scores V^a.V^b, "next" V^a.V^b + V^a.U^b + U^a.V^b.
        WalkstreamError if the item is unknown or has no vector yet.
        """
        key = encode(item)
        row = self._row(item, key)
        keys, rows = self._candidates(key, row, k, min_updates)
        (vector,), (context,) = published(row)
        vectors, contexts = published(rows)
        if mode == "similar":
            score = vectors @ vector
        else:
            score = vectors @ (vector + context) + contexts @ vector
        order = np.argsort(-score, kind="stable")[:k].tolist()
        found = [
            Neighbour(
                keys[at].decode(),
                float(score[at]),
                int(rows["cluster"][at]) if rows["cluster"][at] != NONE else None,
                int(rows["updates"][at]),
                self.store.attributes(keys[at]),
            )
            for at in order
        ]
        return Answer(item, mode, len(keys), found)

    def _row(self, item: str, key: bytes) -> NDArray[np.void]:
        """The item's row, of shape [1]."""
        value = self.store.row(key) if is_item(key) else None
        row = from_values([value] if value else [], self.store.dtype)
        if len(row) and row["published"][0] > 0:
            return row
        if len(row) or self.store.attributes(key):
            raise WalkstreamError(
                f"item {item!r} has no vector yet: it gets one after its first clicks together "
                "with other items"
            )
        raise WalkstreamError(
            f"{self.store.path}: there is no item {item!r}. It was never clicked, or not for so "
            "long that it left"
        )

    def _candidates(
        self, key: bytes, row: NDArray[np.void], k: int, min_updates: int
    ) -> tuple[list[bytes], NDArray[np.void]]:
        """Items in the buckets around the item, with their rows.

        Left out are the item itself and those with fewer updates.
        """
        x = features(*published(row))
        if len(centre := self._placement().centre):
            x = x - centre
        probes = self.lsh.probes(x[0], PROBES[-1] - 1)
        found: set[bytes] = set()
        done = 0
        for width in PROBES:
            found |= self.store.buckets(
                (table, bucket)
                for table, buckets in enumerate(probes[:, done:width].tolist())
                for bucket in buckets
            )
            done = width
            # The item itself is among them.
            if len(found) > max(k, ENOUGH) or (len(found) > k and width >= PROBES[-2]):
                keys, rows = self._with_rows(sorted(found - {key}), min_updates)
                if len(keys) >= k:
                    return keys, rows
        keys, rows = self.store.all_rows()
        others = [is_item(other) and other != key for other in keys]
        return _chosen(keys, rows, others, min_updates)

    def _with_rows(
        self, keys: list[bytes], min_updates: int
    ) -> tuple[list[bytes], NDArray[np.void]]:
        values = self.store.rows(keys)
        there = [value is not None for value in values]
        rows = np.zeros(len(keys), self.store.dtype)
        rows[there] = from_values([v for v in values if v is not None], self.store.dtype)
        return _chosen(keys, rows, there, min_updates)

    def _placement(self) -> Placement:
        value = self.store.meta(records.PLACEMENT)
        return records.unpack_placement(value, self.dim) if value else Placement.empty()


def _chosen(
    keys: list[bytes], rows: NDArray[np.void], wanted: Sequence[bool], min_updates: int
) -> tuple[list[bytes], NDArray[np.void]]:
    enough = (rows["published"] > 0) & (rows["updates"] >= min_updates)
    at = np.flatnonzero(np.array(wanted, np.bool_) & enough)
    return [keys[i] for i in at], rows[at]


def published(rows: NDArray[np.void]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """V^ and U^ of rows as they were published, float32 [n, d] each."""
    vectors, contexts = (unit_rows(rows[name].astype(np.float32)) for name in ("pub_v", "pub_u"))
    return vectors, contexts


def run(state: Path, item: str, k: int, mode: Mode, min_updates: int, as_json: bool) -> None:
    """Print the neighbours of an item. WalkstreamError if there is no such folder or item."""
    with tempfile.TemporaryDirectory(prefix="walkstream-") as scratch:
        store = open_for_reading(state, Path(scratch))
        try:
            answer = Index(store).neighbours(item, k, mode, min_updates)
            items = store.placed()
        finally:
            store.close()
    if as_json:
        told = {
            "item": item,
            "mode": mode,
            "candidates": answer.candidates,
            "items": items,
            "neighbours": answer.neighbours,
        }
        print(msgspec.json.encode(told).decode())
    else:
        Console().print(_table(answer))
        print(f"looked at {answer.candidates:,} of {items:,} items")


def _table(answer: Answer) -> Table:
    title = "Items like" if answer.mode == "similar" else "Items clicked after"
    table = Table(title=f"{title} {escape(answer.item)}")
    for column in ("#", "item", "name", "score", "cluster", "updates"):
        table.add_column(column, justify="left" if column in ("item", "name") else "right")
    for rank, found in enumerate(answer.neighbours, 1):
        name = found.attributes.get("name", found.attributes.get("title", ""))
        cluster = "" if found.cluster is None else str(found.cluster)
        text = name if isinstance(name, str) else ", ".join(name)
        score, updates = f"{found.score:.3f}", f"{found.updates:,}"
        table.add_row(str(rank), escape(found.item), escape(text), score, cluster, updates)
    return table
