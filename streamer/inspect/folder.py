"""What a state folder holds, for people and for scripts."""

import statistics
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from core.placing.placement import SETTLED, Placement
from streamer import counts
from streamer.errors import WalkstreamError
from streamer.state import packing, records
from streamer.state import store as stores
from streamer.state.folders import reading
from streamer.state.records import is_item
from streamer.state.store import Store
from streamer.terminal import Console
from streamer.wording import amounts, counted
from streamer.worker import checkpoint


class Contents(msgspec.Struct, frozen=True):
    """What `inspect --json` prints. Partitions are named `topic/partition`."""

    space: str
    """Name of the vector space, as in public records."""
    header: records.Space
    origin: str | None
    """`replay` or `adopted` if the folder began as a replay, else None."""
    items: int
    """Rows of items, and of these how many have a vector."""
    with_vector: int
    attribute_rows: int
    nodes: int
    """Of the graph as the sweeps wrote it, as are arcs and sessions."""
    arcs: int
    sessions: int
    epoch: int
    """Placements fitted so far; 0 while there are no clusters."""
    clusters: dict[int, int]
    """Items of each cluster; empty ones too, once there are clusters."""
    names: dict[int, str]
    """Of clusters by rules, those that are rules now; else empty."""
    bits: int
    """Of each LSH key."""
    settled: int | None
    """Items with enough updates for the first clusters; None once there are clusters."""
    buckets: int
    """LSH buckets that hold an item, in all tables, and the items of the largest."""
    largest_bucket: int
    progress: dict[str, records.Progress]
    """How far the clicks of each partition were processed."""
    tail: dict[str, int]
    """Next offset of each partition of `items` and `model-state`."""
    swept: int | None
    """The commit after which the last sweep of graph and sessions began that is over, from which
    evidence is folded again at a start; None if none is."""
    commits: int
    """Of the worker that went furthest; 0 in a folder that no worker wrote to, as is `rounds`."""
    rounds: int
    promoted: records.Promoted | None
    """That the challenger took over, if it did."""
    age_seconds: float
    """Since the folder last took something."""
    bytes: int


def settled(updates: NDArray[np.int64]) -> int:
    """How many items count for the first clusters, by the updates of all items, shape (n,)."""
    return int((updates >= SETTLED).sum())


def clusters_awaited(settled: int, min_items: int) -> str:
    """When clusters come. `min_items` is `clusters.min_items`."""
    return (
        f"clusters come with clusters.min_items = {min_items:,} settled items ({SETTLED} updates "
        f"or more); there are {settled:,}"
    )


def contents(store: Store) -> Contents:
    """All figures of an open folder; reads all keys once. WalkstreamError if it has no space."""
    space = store.space
    if space is None:
        raise WalkstreamError(f"{store.path}: nothing was learned yet: there is no vector space")
    placement = packing.unpack_placement(store.meta(records.PLACEMENT), space.dim)
    sizes, buckets = counts.cluster_sizes(store), counts.bucket_sizes(store)
    items, attribute_rows = counts.rows(store)
    nodes, arcs = checkpoint.size(store)
    origin, saved = store.meta(stores.ORIGIN), checkpoint.newest(store)
    progress = {f"{t}/{p}": done for (t, p), done in sorted(store.progress().items())}
    return Contents(
        space=space.name,
        header=space,
        origin=origin.decode() if origin else None,
        items=items,
        with_vector=counts.with_vector(store),
        attribute_rows=attribute_rows,
        nodes=nodes,
        arcs=arcs,
        sessions=checkpoint.sessions(store),
        epoch=placement.epoch,
        clusters={label: sizes.get(label, 0) for label in range(len(placement.centroids))},
        names=_names(placement),
        bits=placement.bits_by(space.lsh_bits),
        settled=None if placement.epoch else _settled(store),
        buckets=len(buckets),
        largest_bucket=max(buckets, default=0),
        progress=progress,
        tail={f"{t}/{p}": offset for (t, p), offset in sorted(store.tail_offsets().items())},
        swept=None if saved is None else saved[1].commit,
        commits=max((done.commit for done in progress.values()), default=0),
        rounds=max((done.round for done in progress.values()), default=0),
        promoted=store.promoted,
        age_seconds=round(store.age(), 1),
        bytes=_size(store.path),
    )


def _names(placement: Placement) -> dict[int, str]:
    rules = placement.rules
    if rules is None:
        return {}
    return {n: rules.name(n) for n, size in enumerate(rules.sizes) if size or n == 0}


def _settled(store: Store) -> int:
    keys, rows = store.all_rows()
    return settled(rows["updates"][[is_item(key) for key in keys]])


def _size(folder: Path) -> int:
    """Bytes of the files; one that the writer deletes meanwhile counts as none."""
    total = 0
    for file in folder.iterdir():
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def run(state: Path, min_items: int, as_json: bool) -> None:
    """Print what the folder holds. WalkstreamError if there is no such folder.

    `min_items` is `clusters.min_items`, which the folder does not tell.
    """
    with reading(state) as store:
        found = contents(store)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    console = Console()
    console.print(_figures(state, found, min_items))
    if found.names:
        console.print(_named(found))
    if found.progress or found.tail:
        console.print(_offsets(found))


def _figures(state: Path, found: Contents, min_items: int) -> Table:
    h = found.header
    hashed = f"{h.lsh_family} hashes, {h.lsh_tables} tables of {found.bits}"
    lines: dict[str, Any] = {
        "space": f"{found.space}: {h.dim} dimensions, seed {h.seed}, {hashed}",
        "items": f"{found.items:,}, {found.with_vector:,} of them with a vector",
        "attribute rows": f"{found.attribute_rows:,}",
        "graph": f"{amounts(node=found.nodes, arc=found.arcs)}, as the sweeps wrote it"
        if found.swept is not None
        else "no sweep is over yet",
        "sessions": f"{found.sessions:,}",
        "clusters": _clusters(found, min_items),
        "buckets": f"{found.buckets:,}, the largest of {counted(found.largest_bucket, 'item')}",
        "commits": f"{found.commits:,}, {counted(found.rounds, 'round')}",
        "last change": f"{found.age_seconds:,.0f} s ago",
        "size": f"{found.bytes / 1e6:,.1f} MB",
    }
    if (one := found.promoted) is not None:
        lines["challenger"] = (
            f"took over with commit {one.commit:,}: alone it hit {one.wins:,} trials, the champion "
            f"{one.losses:,}" + (", and a new vector space began" if one.is_new_space else "")
        )
    if found.origin:
        lines["began as"] = "a replay" + (" that a worker took over" * (found.origin == "adopted"))
    table = Table(title=escape(str(state)), show_header=False)
    for name, line in lines.items():
        table.add_row(name, escape(line))
    return table


def _clusters(found: Contents, min_items: int) -> str:
    sizes = found.clusters.values()
    if not sizes:
        return f"none yet: {clusters_awaited(found.settled or 0, min_items)}"
    middle = statistics.median(sizes)
    times = "once" if found.epoch == 1 else f"{found.epoch} times"
    return (
        f"{len(sizes)} of {min(sizes):,} to {max(sizes):,} items, median {middle:,.0f}, "
        f"fitted {times}"
    )


def _named(found: Contents) -> Table:
    """The clusters by rules, the largest first."""
    table = Table("cluster", "name", "items", title="Clusters by rules")
    for number in sorted(found.names, key=lambda n: (-found.clusters.get(n, 0), n)):
        size = f"{found.clusters.get(number, 0):,}"
        table.add_row(f"{number}", escape(found.names[number]), size)
    return table


def _offsets(found: Contents) -> Table:
    table = Table("partition", "next offset", "commit", title="Offsets")
    for name, done in found.progress.items():
        table.add_row(escape(name), f"{done.offset:,}", f"{done.commit:,}")
    for name, offset in found.tail.items():
        table.add_row(escape(name), f"{offset:,}", "")
    return table
