"""What a test reads from the state folder of a worker that is not running."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.engine import Engine
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.records import Progress
from streamer.state.store import Store, bucket_prefix, cluster_prefix
from streamer.worker import checkpoint
from tests.support import START_MS

Graph = dict[str, tuple[int, float, float, list[str], bytes]]


@dataclass(frozen=True)
class Contents:
    """All of a state folder that a restart may not change. Slots are replaced by ids."""

    rows: dict[bytes, bytes]
    clusters: set[bytes]
    postings: set[bytes]
    attributes: dict[bytes, bytes]
    progress: dict[tuple[str, int], Progress]
    versions: dict[int, int]
    placement: bytes | None
    fusion: bytes | None
    graph: Graph
    """Of each node: time last seen, decayed counts of clicks and of impressions, its neighbours in
    order, their weights."""
    sessions: dict[str, tuple[int, list[str], int, list[int]]]
    """Of each user: time of the last click, last items, number of clicks, hashes of event ids."""
    clock: tuple[int, int]
    folded: int | None
    """The commit as of which graph and sessions are."""


def contents(config: Config) -> Contents:
    """What the folder of a worker that is not running holds."""
    store = Store(Path(config.state.dir))
    try:
        engine = Engine(config.engine_settings)
        swept = checkpoint.load(store, engine)
        names = engine.vocabulary.keys
        sessions = {}
        for user, at in engine.sessions.users.items():
            items = engine.sessions.items[at, : engine.sessions.size[at]]
            sessions[user] = (
                int(engine.sessions.time[at]),
                [names[i] or "" for i in items],
                int(engine.sessions.clicks[at]),
                engine.sessions.event_ids[at].tolist(),
            )
        return Contents(
            rows=store.everything("rows"),
            clusters=set(store.everything("clusters")),
            postings=set(store.everything("postings")),
            attributes=store.everything("attributes"),
            progress=store.progress(),
            versions=store.versions(),
            placement=store.meta(records.PLACEMENT),
            fusion=store.meta(records.FUSION),
            graph=graph_of(engine),
            sessions=sessions,
            clock=(engine.clock.time, engine.clock.landmark),
            folded=None if swept is None else swept.commit,
        )
    finally:
        store.close()


def graph_of(engine: Engine) -> Graph:
    """All nodes, as in `Contents`."""
    graph, names = engine.graph, engine.vocabulary.keys
    out = {}
    for slot, name in enumerate(names):
        nbr, wgt = graph.row(slot)
        out[name or ""] = (
            int(graph.last_seen[slot]),
            float(graph.clicked[slot]),
            float(graph.shown[slot]),
            [names[n] or "" for n in nbr],
            wgt.tobytes(),
        )
    return out


def counts_of(engine: Engine) -> dict[int, Any]:
    """By hash of an id, what is counted of it (`core.graph.admission`)."""
    entries = engine.catalogue.admission.entries()
    return {int(id_): [x.tolist() for x in rest] for id_, *rest in zip(*entries, strict=True)}


def table_and_graph(config: Config) -> tuple[dict[int, Any], Graph]:
    """What the folder of a stopped worker has of ids that are counted, and of the graph."""
    with Store(Path(config.state.dir)) as store:
        engine = Engine(config.engine_settings)
        assert checkpoint.load(store, engine) is not None
        return counts_of(engine), graph_of(engine)


def counts(config: Config) -> dict[str, float]:
    """The clicks that the folder of a stopped worker counts for each item, as of START_MS."""
    store = Store(Path(config.state.dir))
    try:
        return {
            key.decode(): one.clicked * 2.0 ** ((one.landmark - START_MS) / one.half_life)
            for key, one in checkpoint.nodes(store)
        }
    finally:
        store.close()


def row_table(config: Config) -> tuple[list[bytes], np.ndarray[Any, np.dtype[np.void]]]:
    store = Store(Path(config.state.dir))
    try:
        return store.all_rows()
    finally:
        store.close()


def assert_same(got: Contents, wanted: Contents, but: Sequence[str] = ()) -> None:
    """Equal in everything, with a message that is short enough to read."""
    for name in Contents.__dataclass_fields__:
        a, b = getattr(got, name), getattr(wanted, name)
        if name in but or a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
            first = sorted(keys, key=str)[:3]
            shown = "; ".join(f"{key!r}: {a.get(key)!r} != {b.get(key)!r}"[:600] for key in first)
            raise AssertionError(f"{name}: {len(keys)} of {len(b)} differ: {shown}")
        if isinstance(a, set):
            raise AssertionError(f"{name}: {len(a - b)} too many, {len(b - a)} missing of {len(b)}")
        raise AssertionError(f"{name}: {a!r} != {b!r}"[:600])


def assert_indices_follow_rows(config: Config) -> None:
    """Clusters and postings are those of the published rows, no more and no less."""
    stored = contents(config)
    keys, rows = row_table(config)
    clusters, postings = set(), set()
    for key, row in zip(keys, rows, strict=True):
        if row["published"] > 0:
            if row["cluster"] >= 0:
                clusters.add(cluster_prefix(int(row["cluster"])) + key)
            for table, bucket in enumerate(row["buckets"].tolist()):
                postings.add(bucket_prefix(table, bucket) + key)
    assert stored.clusters == clusters
    assert stored.postings == postings
