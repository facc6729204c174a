"""Transitions folded into the item graph with decay, and what an arc and an item take of memory."""

import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import numba as nb
import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.sparse import csr_array

from core.clicks import Clicks
from core.engine import Engine
from core.graph import fold as graphs
from core.graph.admission import Admission
from core.graph.fold import Batch, Rules
from core.graph.graph import LIVE, NEVER, Graph
from core.graph.sessions import Sessions
from core.graph.slabs import LINE, UNIT
from core.ids.vocabulary import Vocabulary
from core.settings import ModelSettings, Settings
from streamer.bench.clicks import SPAN_MS, Stream
from streamer.bench.results import Options, Result, in_turns

ITEMS, USERS, CLICKS = 100_000, 300_000, 5_000_000
QUICK_CLICKS = 1_000_000
BATCH = 10_000
"""Clicks folded at a time, as many as a restart takes, and after so many the peer decays."""
TARGET, ARC_TARGET = 3e6, 20
ID = "item-{:06d}"


@dataclass(frozen=True)
class Folded:
    """What is left of a stream."""

    graph: Graph
    sources: NDArray[np.int32]
    targets: NDArray[np.int32]
    """Items of each transition, in order."""
    batches: NDArray[np.int64]
    """How many transitions there are up to the end of each batch."""
    seconds: float


def measure(options: Options) -> Iterator[Result]:
    """Transitions a second, beside sparse matrices that are decayed and added; then memory."""
    clicks = QUICK_CLICKS if options.quick else CLICKS
    stream = Stream.of(clicks, ITEMS, USERS)
    users = [f"user-{user}" for user in stream.users.tolist()]
    folded = fold(stream, users)
    graph, transitions = folded.graph, len(folded.targets)
    matrix = csr_array((ITEMS, ITEMS), dtype=np.float32)

    def ours() -> float:
        return transitions / fold(stream, users).seconds

    def peer() -> float:
        nonlocal matrix
        begin = time.perf_counter()
        matrix = accumulate(folded)
        return transitions / (time.perf_counter() - begin)

    rate, peer_rate = in_turns(ours, peer)
    limit = transitions / min(touched(folded) for _ in range(3))
    yield Result(
        bench="graph",
        setting=f"{transitions:,} transitions, {graph.arcs:,} arcs, {ITEMS:,} items",
        ours=rate,
        unit="transitions/s",
        peer=f"scipy {scipy.__version__}, CSR decayed and added every {BATCH:,} clicks",
        peer_value=peer_rate,
        ratio=rate / peer_rate,
        quality="rows of 128, decay by the click",
        peer_quality="rows of any length, decay by the batch, sessions given",
        ceiling=f"{limit / 1e6:.1f} M/s: reading both rows of each transition, measured",
        target=f"{TARGET:,.0f}",
    )
    held = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    slabs = 8 * UNIT * int(graph.heads[0]) / graph.arcs
    yield _memory(
        "an arc, with slack and nodes", graph.nbytes / graph.arcs, f"{ARC_TARGET}",
        f"{slabs:.1f} in slabs, the rest free pool and nodes; 8 if rows could not grow",
        f"scipy {scipy.__version__}", held / matrix.nnz,
    )  # fmt: skip
    for dim in (64, 128):
        row = item_bytes(dim)
        yield _memory(f"an item, d={dim}", row, None, f"{12 * dim}: V, U, and both as published")
    yield _memory("an id of 11 characters", id_bytes(), None, "11, as bytes in one block")
    sessions = Sessions(Settings().session.length, Settings().session.event_ids)
    sessions.intern(["user"])
    per_user = sessions.nbytes / len(sessions.time)
    yield _memory("a session, without its id", per_user, None, f"{per_user:.0f}: no slack in it")


def _memory(
    what: str, ours: float, target: str | None, ceiling: str,
    peer: str = "none", peer_value: float | None = None,
) -> Result:  # fmt: skip
    return Result(
        bench="graph",
        setting=f"memory of {what}",
        ours=ours,
        unit="bytes",
        peer=peer,
        peer_value=peer_value,
        ratio=ours / peer_value if peer_value else None,
        ceiling=ceiling,
        target=target and f"at most {target}",
    )


def fold(stream: Stream, names: list[str]) -> Folded:
    """The whole stream as `Engine.fold` folds it. Interning of users is not timed."""
    s = Settings()
    g, ses = Graph(s.graph.max_degree), Sessions(s.session.length, s.session.event_ids)
    g.reserve(ITEMS)
    half_life, gap = int(s.graph.half_life), int(s.session.gap)
    clocks = np.full(1, NEVER)
    landmark, clock = int(stream.times[0]) // half_life * half_life, NEVER
    rules = Rules(half_life, gap, s.session.max_events, s.graph.max_degree, LIVE)
    counting = Admission(s.admission).of(Clicks.empty())
    sources, targets, batches = [], [], []
    seconds = 0.0
    for at in range(0, len(names), BATCH):
        batch = slice(at, at + BATCH)
        items, times = stream.items[batch].copy(), stream.times[batch]
        n = len(items)
        clicks = Batch(
            ses.intern(names[batch]), np.zeros(0, np.uint64), times, np.ones(n, np.float32),
            np.zeros(0, np.int32), clocks, len(ses.names), ITEMS,
        )  # fmt: skip
        begin = time.perf_counter()
        out = graphs.Folded.of(items, s.session.length, 0)
        done = 0
        while done < n:
            done, why, clock = graphs.fold(
                done, clicks, ses.columns(), g.slabs(), counting, out, (clock, landmark), rules
            )
            if why == graphs.FULL:
                g.grow_pool()
        ses.collect()
        seconds += time.perf_counter() - begin
        goes_on = out.added > 0.0
        sources.append(out.history[goes_on, 0])
        targets.append(out.target[goes_on])
        batches.append(len(targets[-1]))
    return Folded(g, np.concatenate(sources), np.concatenate(targets), np.cumsum(batches), seconds)


def accumulate(folded: Folded) -> csr_array:
    """The same transitions, both ways, in a matrix that loses weight before each batch is added."""
    decay = np.float32(2.0 ** (-SPAN_MS / len(folded.batches) / Settings().graph.half_life))
    total = csr_array((ITEMS, ITEMS), dtype=np.float32)
    begin = 0
    for end in folded.batches.tolist():
        a, b = folded.sources[begin:end], folded.targets[begin:end]
        ones = np.ones(2 * len(a), np.float32)
        both = np.concatenate([a, b]), np.concatenate([b, a])
        total.data *= decay
        total = total + csr_array((ones, both), shape=total.shape)
        begin = end
    return total


def touched(folded: Folded) -> float:
    """Seconds for the reading alone: every line of both rows of each transition."""
    g = folded.graph
    arrays = (folded.sources, folded.targets, g.start, g.degree, g.nbr, g.wgt)
    _touch(folded.sources[:1], folded.targets[:1], *arrays[2:])
    begin = time.perf_counter()
    _touch(*arrays)
    return time.perf_counter() - begin


@nb.njit(cache=True)
def _touch(sources, targets, start, degree, nbr, wgt):  # type: ignore[no-untyped-def]
    seen = 0.0
    for k in range(len(sources)):
        for node in (sources[k], targets[k]):
            base = start[node] * UNIT
            for i in range(base, base + degree[node], LINE):
                seen += nbr[i] + wgt[i]
    return seen


def item_bytes(dim: int) -> float:
    """Of an item's rows in the model, and of its node, arcs aside: bytes of all arrays by slot."""
    engine = Engine(Settings(model=ModelSettings(dim=dim)))
    engine.graph.reserve(ITEMS)
    slots = len(engine.graph.degree)
    engine.model.reserve(slots)
    pool = engine.graph.nbr.nbytes + engine.graph.wgt.nbytes + engine.graph.heads.nbytes
    tables = engine.table_bytes()
    return (tables["vectors"] + tables["graph"] - pool) / slots


def id_bytes() -> float:
    """Of an id in a vocabulary, measured."""
    tracemalloc.start()
    vocabulary = Vocabulary()
    for begin in range(0, ITEMS, BATCH):
        vocabulary.intern([ID.format(i) for i in range(begin, begin + BATCH)])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / len(vocabulary)
