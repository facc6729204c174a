"""Rows, pools and graphs to learn on, and the settings that most tests use."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.graph.slabs import Slabs
from core.learning import skipgram
from core.learning.adagrad import Pace
from core.learning.negatives import Pool, pool
from core.learning.skipgram import Rows
from core.settings import ModelSettings

DIM = 16

WALKS: dict[str, Any] = {
    "seed": 1, "round_number": 1, "window": 2, "shrink": False, "negatives": 5, "block": 4,
    "hardest_of": 2, "pace": Pace.of(0.1, 1e-3),
}  # fmt: skip
SESSIONS: dict[str, Any] = {
    "seed": 1, "round_number": 1, "passes": 2, "decay": 0.5, "negatives": 5, "sharpness": 5.0,
    "pace": Pace.of(0.1, 1e-3),
}  # fmt: skip


def random_rows(n: int, slots: int = 0, scale: float = 0.5, accumulator: float = 0.0) -> Rows:
    rng = np.random.default_rng(1)

    def table_of(width: int) -> NDArray[np.float32]:
        return rng.uniform(-scale, scale, (n, width)).astype(np.float32)

    return Rows(
        v=table_of(DIM),
        u=table_of(DIM),
        acc_v=np.full(n, accumulator, np.float32),
        acc_u=np.full(n, accumulator, np.float32),
        mix=table_of(1 + slots),
        attrs=np.full((n, slots), -1, np.int32),
        dirty=np.zeros(n, np.bool_),
        owned=np.ones(n, np.bool_),
    )


def learn_sessions(
    rows: Rows, history: NDArray[np.int32], target: NDArray[np.int32], graph: Slabs, pool: Pool,
    share: float = 1.0, **chosen: Any,
) -> None:  # fmt: skip
    settings = ModelSettings(
        seed=chosen["seed"], session_passes=chosen["passes"], session_decay=chosen["decay"],
        session_negatives=chosen["negatives"], sharpness=chosen["sharpness"],
    )  # fmt: skip
    skipgram.learn_sessions(
        rows, history, target, graph, pool, settings, round_number=chosen["round_number"],
        pace=chosen["pace"], share=share,
    )  # fmt: skip


def uniform(items: list[int]) -> Pool:
    return pool(np.array(items, np.int32), np.ones(len(items), np.float32), 0.0)


def arcs(n: int = 62, weights: dict[int, dict[int, float]] | None = None) -> Slabs:
    """A graph of n items and these rows."""
    graph = Graph(64)
    graph.reserve(n)
    for a, row in (weights or {}).items():
        graph.put_row(a, ints(list(row)), np.array(list(row.values()), np.float32))
    return graph.slabs()


def ints(rows: Any) -> NDArray[np.int32]:
    return np.array(rows, np.int32)
