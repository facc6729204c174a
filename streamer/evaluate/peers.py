"""Peers that train again from scratch on all history, every so often: gensim, and our own trainer.

Each training reads as many tokens as the engine learned from until then: who trains for longer
finds more. Between two the vectors stand still, and an item that came since is not found. item2vec:
Barkan and Koenigstein, "Item2vec: neural item embedding for collaborative filtering", MLSP 2016.
DeepWalk: Perozzi, Al-Rfou and Skiena, KDD 2014.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from core.engine import Engine
from core.graph.graph import Graph
from core.graph.walks import walk
from core.learning import negatives, skipgram
from core.learning.adagrad import Pace
from core.model import Model
from core.placing.clusters import unit_rows
from core.settings import Settings
from streamer.errors import ConfigError
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Ranks, chunks, rank_rows

Peer = Literal["gensim", "batch"]

EVERY = 0.1
"""Share of the log between two trainings."""
LENGTH = 40
"""Items in a walk of DeepWalk."""
FEWEST = 5
"""Passes at least: of item2vec over the sessions, of others with new walks from every item."""


@dataclass(frozen=True)
class Vectors:
    """V^ and U^ of m items: numbers int32 [m] of `past`, rows float32 [m, d]."""

    numbers: NDArray[np.int32]
    v: NDArray[np.float32]
    u: NDArray[np.float32]


Kind = Literal["similar", "pair", "next"]
Train = Callable[[Engine, Past], Vectors]


class Retrained:
    """Ranks by vectors that are trained anew at every tenth of the log.

    "similar" scores V^a.V^b; "pair" V^a.U^b, which is what skip-gram is trained for; "next" is the
    engine's.
    """

    def __init__(self, name: str, kinds: tuple[Kind, ...], train: Train) -> None:
        self._names = {kind: f"{name}, {kind}" for kind in kinds}
        self._train, self._trained = train, 0
        nothing = np.zeros((0, 1), np.float32)
        self._vectors = Vectors(np.zeros(0, np.int32), nothing, nothing)

    def follow(self, share: float, engine: Engine, past: Past) -> None:
        """Train if a tenth of the log went by since the last time."""
        if int(share / EVERY) > self._trained and share < 1.0:
            self._trained = int(share / EVERY)
            self._vectors = self._train(engine, past)

    def __call__(self, asked: Asked) -> Ranks:
        out = {name: np.full(len(asked), asked.last, np.int32) for name in self._names.values()}
        row = np.full(len(asked.column), -1, np.int32)
        row[self._vectors.numbers] = np.arange(len(self._vectors.numbers), dtype=np.int32)
        row = row[asked.numbers]
        there = row >= 0
        if not there.any():
            return out
        # Rows of zeros where an item is not known: it comes after all that are.
        v = np.where(there[:, None], self._vectors.v[row], np.float32(0.0))
        u = np.where(there[:, None], self._vectors.u[row], np.float32(0.0))
        last = np.where(there, np.float32(0.0), np.float32(-np.inf))
        target = np.where(there[asked.query] & there[asked.target], asked.target, -1)
        for at in chunks(len(asked)):
            a = asked.query[at]
            for kind, name in self._names.items():
                scores = v[a] @ (u if kind == "pair" else v).T
                if kind == "next":
                    scores += u[a] @ v.T
                    scores += v[a] @ u.T
                scores += last
                rank_rows(asked, at, target, scores, out[name])
        return out


def of(name: Peer, settings: Settings) -> list[Retrained]:
    """The rankers of a peer. ConfigError if its package is missing."""
    if name == "batch":
        return [Retrained("batch", ("next",), batch)]
    try:
        word2vec = import_module("gensim.models").Word2Vec
    except ModuleNotFoundError:
        raise ConfigError(
            "--peer gensim: gensim is not installed: pip install 'walkstream[bench]'"
        ) from None
    logging.getLogger("gensim").setLevel(logging.WARNING)

    def item2vec(engine: Engine, past: Past) -> Vectors:
        sessions = list(past.sessions())
        epochs = _passes(engine, sum(map(len, sessions)))
        return _gensim(word2vec, Sentences(sessions), epochs, settings)

    def deepwalk(engine: Engine, past: Past) -> Vectors:
        graph = undirected(past)
        nodes = np.flatnonzero(graph.degree > 0).astype(np.int32)
        starts = np.tile(nodes, _passes(engine, LENGTH * len(nodes)))
        walks = walk(graph, starts, LENGTH, settings.model.seed, 0)
        return _gensim(word2vec, Sentences(walks), 1, settings)

    return [
        Retrained("item2vec", ("similar", "pair"), item2vec),
        Retrained("DeepWalk", ("similar", "pair"), deepwalk),
    ]


def _passes(engine: Engine, tokens: int) -> int:
    """Passes over so many tokens that come to what the engine learned from."""
    learned = int(engine.model.columns.updates[engine.items].sum())
    return max(FEWEST, round(learned / max(tokens, 1)))


# -- gensim --------------------------------------------------------------------------------------


class Sentences:
    """Rows of item numbers as the lists of words that gensim asks for, once for each epoch."""

    def __init__(self, rows: "list[NDArray[np.int32]] | NDArray[np.int32]") -> None:
        self._rows = rows
        self._words = [str(n) for n in range(1 + max((int(r.max()) for r in rows), default=-1))]

    def __iter__(self) -> Iterator[list[str]]:
        words = self._words
        for row in self._rows:
            yield [words[n] for n in row.tolist()]


def _gensim(word2vec: Any, sentences: Sentences, epochs: int, settings: Settings) -> Vectors:
    """Skip-gram of gensim with the engine's dimension, window and negatives, and its defaults."""
    m = settings.model
    model = word2vec(
        sentences, vector_size=m.dim, window=m.window, negative=m.negatives, sg=1, min_count=1,
        epochs=epochs, seed=m.seed, workers=len(os.sched_getaffinity(0)),
    )  # fmt: skip
    numbers = np.array([int(word) for word in model.wv.index_to_key], np.int32)
    return Vectors(numbers, unit_rows(model.wv.vectors), unit_rows(model.syn1neg))


def undirected(past: Past) -> Graph:
    """The graph of all transitions so far, both ways, each counted once, nothing decayed."""
    rows: dict[int, dict[int, float]] = {}
    for a in range(len(past.vocabulary)):
        for b, n in zip(*(x.tolist() for x in past.after.row(a)), strict=True):
            for one, other in ((a, b), (b, a)):
                arcs = rows.setdefault(one, {})
                arcs[other] = arcs.get(other, 0.0) + n
    widest = max(map(len, rows.values()), default=1)
    graph = Graph(max(4, 1 << (widest - 1).bit_length()))
    graph.reserve(len(past.vocabulary))
    for a, row in rows.items():
        nbr = np.fromiter(row.keys(), np.int32, len(row))
        graph.put_row(a, nbr, np.fromiter(row.values(), np.float32, len(row)))
    return graph


# -- our own trainer -----------------------------------------------------------------------------


def batch(engine: Engine, past: Past) -> Vectors:
    """The engine's trainer from scratch: walks of the same length and rate from every item of the
    same decayed graph, new ones in each pass, and then all transitions of the log so far."""
    s, m, columns = engine.settings, engine.settings.model, engine.model.columns
    model = Model(s)
    model.reserve(len(columns.alive))
    slots, items = np.flatnonzero(columns.alive).astype(np.int32), engine.items
    hashes = np.random.default_rng(m.seed).integers(1 << 63, size=len(slots), dtype=np.uint64)
    model.first_rows(slots, np.zeros(len(slots), np.int32), hashes)
    model.rows.attrs[slots] = engine.model.rows.attrs[slots]
    pools = negatives.Pools(s.negatives)
    pool = pools.of(items, engine.graph, columns.cluster, columns.buckets[:, 0],
                    columns.published, columns.epoch, engine.placement.hashed_since)  # fmt: skip
    starts = np.tile(items, s.walks.per_node)
    passes = _passes(engine, s.walks.length * len(starts))
    pace = Pace.of(m.rate, m.initial_accumulator)
    for number in range(passes):
        walks = walk(engine.graph, starts, s.walks.length, m.seed, number, s.walks.p, s.walks.q)
        skipgram.learn_walks(
            model.rows, walks, pool, seed=m.seed, round_number=number, window=m.window,
            shrink=m.shrink_windows, negatives=m.negatives, block=m.block,
            hardest_of=s.negatives.hardest_of, pace=pace, threads=s.engine.threads,
        )  # fmt: skip
    numbers = past.vocabulary.intern(engine.vocabulary.names(items))
    slot = np.full(len(past.vocabulary) + 1, -1, np.int32)  # the last for -1, which is none
    slot[numbers] = items
    for history, target in past.transitions:
        skipgram.learn_sessions(
            model.rows, slot[history], slot[target], engine.graph.slabs(), pools.uniform(items), m,
            round_number=passes,
            pace=Pace.of(m.session_rate, m.initial_accumulator)._replace(rate=pace.rate),
        )  # fmt: skip
    v, u = skipgram.hidden(model.rows, items), model.rows.u[items]
    return Vectors(numbers, unit_rows(v), unit_rows(u))
