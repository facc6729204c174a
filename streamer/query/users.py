"""What to recommend to a user by the vectors of `user-vectors`: items (u2i), or what is hot nearby.

Each interest gives a list, and the lists are merged so that each has its share of however many are
shown (`core.users.in_turn`). Scores of different interests are not compared: a small interest would
show nothing beside a large one.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from rich.markup import escape
from rich.table import Table

from core.ids.vocabulary import encode
from core.users import in_turn
from streamer.errors import WalkstreamError
from streamer.query.choice import ALL
from streamer.query.cluster import Hot, hottest
from streamer.query.index import Asking, Index, Neighbour
from streamer.query.names import name_of
from streamer.query.run import Options
from streamer.query.run import table as neighbours_table
from streamer.state import users
from streamer.state.folders import reading
from streamer.state.store import Store, cluster_prefix
from streamer.state.users import Read
from streamer.terminal import Console, say
from streamer.wording import counted

T = TypeVar("T", bound=Neighbour | Hot)

RECENT = 5
"""With a mean, `hybrid` goes by so many newest items of the user."""

TITLES = {"similar": "Items like those of", "next": "Items clicked after those of",
          "hybrid": "Items to offer to"}  # fmt: skip


class Reason(msgspec.Struct, frozen=True):
    """An interest of a user, and how many of the items that are shown are there for it."""

    weight: float
    item: str | None
    """The item that stands for it; None for a mean."""
    cluster: int | None
    """Whose centroid is nearest, once there are clusters."""
    shown: int = 0


class Offer(msgspec.Struct, frozen=True):
    user: str
    mode: str
    """Of `Mode`, or `cluster`."""
    interests: list[Reason]
    left_out: int
    """Items of the user's history, which are not in the answer."""
    items: Sequence[Neighbour | Hot]


def merged(lists: Sequence[Sequence[T]], weights: Sequence[float], k: int) -> list[tuple[int, T]]:
    """The first k of all lists, each with the number of its list. What is in several of them comes
    where the first of these has it. Weights are more than 0."""
    out: dict[str, tuple[int, T]] = {}
    for number, rank in in_turn([len(found) for found in lists], weights):
        if len(out) == k:
            break
        out.setdefault(lists[number][rank].item, (number, lists[number][rank]))
    return list(out.values())


def stored(store: Store, user: str) -> Read:
    """The record of a user. WalkstreamError if there is none, or no vector in it."""
    value = store.entry(users.FAMILY, users.RECORD + encode(user))
    if value is None:
        raise WalkstreamError(
            f"{store.path}: there is no user {user!r}. They clicked nothing since "
            "user_vectors.kind is set, or not for user_vectors.idle, or were forgotten"
        )
    record, space = users.read(value), store.space
    if space is not None and space.since and record.space != space.name:
        raise WalkstreamError(
            f"user {user!r} has no vector of the new space yet: a challenger took over, and all is "
            "published again. Ask once more when the worker is through"
        )
    if not record.vectors:
        raise WalkstreamError(
            f"user {user!r} has no vector: none of the items clicked had one at the time"
        )
    return record


def offer(
    index: Index, user: str, options: Options, by_cluster: bool = False, with_seen: bool = False
) -> Offer:
    """What to show to a user, without what is in the history unless `with_seen`."""
    record = stored(index.store, user)
    arrays = [one.arrays for one in record.vectors]
    weights = [one.weight for one in record.vectors]
    seen = set() if with_seen else {one.item for one in record.history}
    centroids = index.placement().centroids.reshape(-1, index.dim)
    clusters = [int(np.argmax(centroids @ v)) if len(centroids) else None for v, _ in arrays]
    if by_cluster:
        lists: list[Any] = list(_hottest(index.store, clusters, weights, seen, options))
    else:
        asked = [Asking(v, u, _session(index, record, one.item), _handles(index, seen))
                 for (v, u), one in zip(arrays, record.vectors, strict=True)]  # fmt: skip
        lists = [
            index.search(one, options.k, options.mode, options.min_updates, options.choice)[0]
            for one in asked
        ]
    found = merged(lists, weights, options.k)
    reasons = [
        Reason(one.weight, one.item, cluster, sum(at == number for at, _ in found))
        for number, (one, cluster) in enumerate(zip(record.vectors, clusters, strict=True))
    ]
    mode = "cluster" if by_cluster else options.mode
    return Offer(user, mode, reasons, len(seen), [one for _, one in found])


def _handles(index: Index, items: Iterable[str]) -> set[Any]:
    handles = (index.shelf.handle(encode(item)) for item in items)
    return {handle for handle in handles if handle is not None}


def _session(index: Index, record: Read, item: str | None) -> list[bytes]:
    """What `hybrid` goes by: the item of an interest, or with a mean the newest of the user's."""
    items = [item] if item is not None else [one.item for one in record.history[-RECENT:]]
    keys = [encode(one) for one in items]
    return [key for key in keys if index.shelf.handle(key) is not None]


def _hottest(
    store: Store, clusters: Sequence[int | None], weights: Sequence[float], seen: set[str],
    options: Options,
) -> Iterable[list[Hot]]:  # fmt: skip
    """Of each interest the most clicked items of its cluster."""
    for cluster in clusters:
        if cluster is None:
            raise WalkstreamError(
                f"{store.path}: there are no clusters yet: they come with clusters.min_items items"
            )
        if next(store.scan("clusters", cluster_prefix(cluster)), None) is None:
            yield []  # nobody is in the one that is nearest
            continue
        found = hottest(store, cluster, options.k + len(seen), options.choice).items
        yield [one for one in found if one.item not in seen]


def run(
    state: Path, user: str, options: Options, by_cluster: bool = False, with_seen: bool = False
) -> None:
    """Print what to show to a user."""
    with reading(state) as store:
        found = offer(Index(store), user, options, by_cluster, with_seen)
    if options.as_json:
        print(msgspec.json.encode(found).decode())
        return
    if by_cluster:
        table = Table(title=f"Most clicked of the clusters of {escape(user)}")
        for column in ("#", "item", "name", "clicks"):
            table.add_column(column, justify="left" if column in ("item", "name") else "right")
        for rank, hot in enumerate(found.items, 1):
            assert isinstance(hot, Hot)
            name = escape(name_of(hot.attributes))
            table.add_row(str(rank), escape(hot.item), name, f"{hot.clicks:,.1f}")
    else:
        title = f"{TITLES[options.mode]} {escape(user)}"
        table = neighbours_table(title, [one for one in found.items if isinstance(one, Neighbour)])
    Console().print(table)
    for one in found.interests:
        what = "all of them" if one.item is None else f"interest in {one.item}"
        say(f"{one.weight:.0%} {what}: {one.shown} shown")
    if found.left_out:
        say(f"without {counted(found.left_out, 'item')} of the history (--with-seen)")
    if not found.items and options.choice != ALL:
        say("nothing passes --where and --min-score: ask with less")
