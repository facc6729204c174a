"""Search for items by their published vectors, through LSH buckets, ranked exactly.

The vectors are those that readers of `item-vectors` have, and that the buckets were computed from:
a row that learned since by less than `publish.min_drift` is still found where it was published.
"""

from collections.abc import Sequence, Set
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.ids.vocabulary import encode
from core.placing.clusters import NONE, unit_rows
from core.placing.lsh import Lsh
from core.placing.placement import Placement, Placer, features
from core.settings import LshSettings, ModelSettings, Settings
from streamer import counts
from streamer.errors import WalkstreamError
from streamer.query.choice import ALL, Choice
from streamer.query.fused import Ranker
from streamer.query.shelves import Query, Resident, Scored, Shelf, Stored
from streamer.state import packing, records
from streamer.state.records import is_item
from streamer.state.store import Store

Mode = Literal["similar", "next", "hybrid"]

ENOUGH = 1500
"""Items met after which no further bucket is probed."""

COMPARED = 400
"""Items that are compared, of those met; four for each neighbour asked for, if that is more. On a
shop of 34,000 items that loses two in a hundred of the true ten nearest, of 100,000 that stand in
groups three in a thousand."""

WIDER = 20
"""Where few may pass a filter, so many times the items are looked at."""

PROBES = (8, 12, 16, 20, 24, 28, 32, 40, 48, 64, 96, 128, 192, 1024)
"""Keys of each table that are probed until there are enough; the last only while fewer than k were
found, and after it every row is read.

With 8 tables of 12 bits this finds .96 to .99 of the true ten nearest. On a shop of 34,000 items
about 18 keys a table give ENOUGH. On shops of 2,900 and 4,700, where most buckets are empty, it
takes all 192."""

AHEAD = 4
"""Keys are computed for the next widths too, up to so many times the one at hand."""

Attributes = dict[str, str | list[str]]


class Neighbour(msgspec.Struct, frozen=True):
    item: str
    score: float
    cluster: int | None
    updates: int
    """How many times it was learned from since it came."""
    attributes: Attributes


class Asking(NamedTuple):
    """What is asked by."""

    vector: NDArray[np.float32]
    """V^a, shape (d,)."""
    context: NDArray[np.float32]
    """U^a, shape (d,)."""
    session: Sequence[bytes]
    """Keys of items that have a vector, the newest last: what `hybrid` goes by."""
    never: Set[Any]
    """Handles of items that are not in the answer."""


class Answer(msgspec.Struct, frozen=True):
    """The nearest items, best first, and how many items were compared for them."""

    item: str
    """The newest item of the query."""
    mode: Mode
    candidates: int
    neighbours: list[Neighbour]
    session: list[str] = []
    """All items of the query, the newest last, where there is more than one."""
    unknown: list[str] = []
    """Those of them that have no vector, and that the query went without."""


class Index:
    """Searches an open state folder, which another thread may be writing to.

    Where a vector space is new, items that are still to be published in it have no vector yet.
    With `resident`, vectors and postings are taken into memory, as they stand now: for many
    queries.
    """

    def __init__(self, store: Store, resident: bool = False) -> None:
        space = store.space
        if space is None:
            raise WalkstreamError(f"{store.path}: nothing was learned yet, so there is no vector")
        self.store, self.dim = store, space.dim
        _ = store.dtype  # Refused, if it is of another version
        hashing = LshSettings(
            space.lsh_family,  # type: ignore[arg-type]
            space.lsh_tables,
            space.lsh_bits,
            space.lsh_width,
        )
        model = ModelSettings(dim=space.dim, seed=space.seed)
        self.placer = Placer(Settings(model=model, lsh=hashing))
        shelf = Resident if resident else Stored
        self.shelf: Shelf = shelf(store, space.least)
        self._ranker: Ranker | None = None
        self._placement: tuple[bytes | None, Placement] = None, Placement.empty()
        """The record of the placement that was read last, and what it says."""

    @property
    def ranker(self) -> Ranker:
        """That of `hybrid`, made when it is first asked."""
        if self._ranker is None:
            self._ranker = Ranker(self.store, self.shelf)
        return self._ranker

    def neighbours(
        self, items: Sequence[str], k: int, mode: Mode, min_updates: int = 0, decay: float = 0.5,
        choice: Choice = ALL,
    ) -> Answer:  # fmt: skip
        """The k items that score best, of those with so many updates; fewer only if there are none.

        `items` are one item, or the last items of a session, the newest last. With unit rows V^ and
        U^, an item b scores for an item a: V^a.V^b ("similar"); E = V^a.V^b + V^a.U^b + U^a.V^b
        ("next"); how likely it is to come next, by all that is known ("hybrid",
        `core.ranking.fusion`). For a session V^a and U^a are means over its items, with weights 1,
        decay, decay^2 from the newest back. The items asked by are never in the answer.

        WalkstreamError if no item is known and has a vector.
        """
        asked = self._weights(items, decay)
        weights = np.array(list(asked.values()), np.float32)
        mean = weights @ self.shelf.vectors(asked.keys())
        keys = [key for key in map(encode, items) if self.shelf.handle(key) in asked]
        asking = Asking(mean[: self.dim], mean[self.dim :], keys, asked.keys())
        found, looked_at = self.search(asking, k, mode, min_updates, choice)
        session = list(items) if len(items) > 1 else []
        unknown = [item for item in items if self._handle(item) not in asked]
        return Answer(items[-1], mode, looked_at, found, session, unknown)

    def search(
        self, asking: Asking, k: int, mode: Mode, min_updates: int = 0, choice: Choice = ALL
    ) -> tuple[list[Neighbour], int]:
        """The k items that score best, as `neighbours` has it, and how many were compared."""
        v, u = asking.vector, asking.context
        halves = [v, np.zeros_like(v)] if mode == "similar" else [v + u, v]
        placement, wide = self.placement(), k * WIDER if choice.filters else k
        query = Query(
            vector=np.concatenate(halves),
            near=np.asarray(placement.centroids.reshape(-1, self.dim) @ halves[0], np.float32),
            most=max(COMPARED, 4 * wide),
            always=set(),
            never=asking.never,
            min_updates=min_updates,
        )
        x = features(unit_rows(v[None, :]), unit_rows(u[None, :]))[0]
        if len(placement.centre):
            x = x - placement.centre
        near = self._candidates(x, wide, query, self.placer.hashing(placement))
        handles, score = self._chosen(asking, near, k, mode, min_updates, choice)
        if choice.filters and len(handles) < k and len(near[0]) < len(self):
            # Few of those that are near pass the filter: all items are looked through.
            near = self.shelf.all_scores(query)
            handles, score = self._chosen(asking, near, k, mode, min_updates, choice)
        found = [self._neighbour(handles[at], float(score[at])) for at in best(score, k)]
        return found, len(handles) if choice == ALL else len(near[0])

    def _chosen(
        self, asking: Asking, near: Scored, k: int, mode: Mode, min_updates: int, choice: Choice
    ) -> Scored:
        if mode == "hybrid":
            near = choice.passing(near, self.shelf, self.store)
            near = self._fused(asking, near, k, min_updates)
        return near if choice == ALL else choice.of(near, self.shelf, self.store)

    def __len__(self) -> int:
        """How many items have a vector, also one of the space before."""
        return counts.with_vector(self.store)

    def _neighbour(self, handle: Any, score: float) -> Neighbour:
        key, cluster, updates = self.shelf.details(handle)
        known = cluster if cluster != NONE else None
        return Neighbour(key.decode(), score, known, updates, self.store.attributes(key))

    def _handle(self, item: str) -> Any:
        return self.shelf.handle(encode(item))

    def _weights(self, items: Sequence[str], decay: float) -> dict[Any, float]:
        """The weight of each item that has a vector, by handle; they sum to 1.

        WalkstreamError, about the newest, if there is none.
        """
        out: dict[Any, float] = {}
        weight = 1.0
        for item in reversed(items):
            handle = self._handle(item)
            if handle is not None:
                out[handle] = out.get(handle, 0.0) + weight
            weight *= decay
        if not out:
            raise self._missing(items[-1])
        total = sum(out.values())
        return {handle: weight / total for handle, weight in out.items()}

    def _missing(self, item: str) -> WalkstreamError:
        key, space = encode(item), self.store.space
        is_new = is_item(key) and space is not None and space.since > 0
        if is_new and self.store.published([key])[0] > 0:
            return WalkstreamError(
                f"item {item!r} has no vector of the new space yet: a challenger took over, and "
                "all is published again. Ask once more when the worker is through"
            )
        if is_item(key) and (self.store.row(key) or self.store.attributes(key)):
            return WalkstreamError(
                f"item {item!r} has no vector: it gets one after its first clicks together with "
                "other items, unless [admission] holds it back. Or it had one and left, as nobody "
                "clicked it for graph.horizon"
            )
        return WalkstreamError(
            f"{self.store.path}: there is no item {item!r}. It was never clicked, or not for so "
            "long that it left"
        )

    def _fused(self, asking: Asking, near: Scored, k: int, min_updates: int) -> Scored:
        """What the fused ranker makes of what is near the items asked by."""
        handles, score = self.ranker.ask(asking.session, *near, k)
        shown = [
            at
            for at, handle in enumerate(handles)
            if handle not in asking.never
            and (not min_updates or self.shelf.details(handle)[2] >= min_updates)
        ]
        return [handles[at] for at in shown], score[np.array(shown, np.int64)]

    def _candidates(self, x: NDArray[np.float32], k: int, query: Query, lsh: Lsh) -> Scored:
        """Items in the buckets around x, as they are hashed, k at least if there are so many."""
        met = self.shelf.begin()
        done = ready = 0
        for width in PROBES:
            if width < PROBES[-2] and width * len(met) < done * ENOUGH:
                # Too few at the rate so far, and buckets that are further off hold fewer.
                continue
            if width > ready:
                ready = min(AHEAD * width, PROBES[-1])
                probes = lsh.probes(x, ready - 1)
            self.shelf.gather(met, probes[:, done:width])
            done = width
            # The items of the query are among them.
            least = k + len(query.never) - 1
            if len(met) > max(least, ENOUGH) or (len(met) > least and width >= PROBES[-2]):
                scored = self.shelf.scores(met, query)
                if len(scored[0]) >= k:
                    return scored
        return self.shelf.all_scores(query)

    def placement(self) -> Placement:
        """Centroids and centre of the folder."""
        value, (last, placement) = self.store.meta(records.PLACEMENT), self._placement
        if value != last:
            placement = packing.unpack_placement(value, self.dim)
            self._placement = value, placement
        return placement


def best(score: NDArray[np.float32], k: int) -> list[int]:
    """The indices of the k greatest, the greatest first, and of equals the first."""
    if k < len(score):
        least = np.partition(score, len(score) - k)[len(score) - k]
        at = np.flatnonzero(score >= least)
    else:
        at = np.arange(len(score))
    return at[np.argsort(-score[at], kind="stable")][:k].tolist()
