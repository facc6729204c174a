"""Skip-gram on walks of a planted-partition graph, beside gensim's word2vec on the same walks.

The kernel is the worker's, on rows like the worker's; walks are longer than the worker's.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import gensim
import numba as nb
import numpy as np
from gensim.models import Word2Vec
from numpy.typing import NDArray

from core.kernels.lanes import PASS, SOURCES, add, fill16, fma, store16
from core.learning import negatives
from core.learning.adagrad import Pace
from core.learning.dense import F32
from core.learning.skipgram import Rows, learn_walks
from core.settings import ModelSettings, NegativeSettings
from streamer.bench.planted import Planted, plant
from streamer.bench.results import Options, Result, in_turns

SETTINGS = ((64, 5, 8, 0.035, 30), (128, 10, 16, 0.05, 20))
"""Dims, window, block, rate, and the multiple of gensim's speed that is aimed at. The rates serve
several epochs over the same walks, as the peer's that decays; the worker's serves one pass."""
NODES, QUICK_NODES = 20_000, 4_000
PER_NODE, LENGTH = 2, 40
EPOCHS = (2, 5)
ATTRIBUTES = ((2, 1.8), (4, 2.8))
"""Attribute rows of an item, and the most that they may cost as a multiple of the plain time."""
PEER = f"gensim {gensim.__version__}"


def measure(options: Options) -> Iterator[Result]:
    """Walk tokens a second, and the quality after 2 and after 5 epochs.

    The worker's settings, threads and attribute rows are compared with the first line's.
    """
    planted = plant(QUICK_NODES if options.quick else NODES)
    walks = planted.walks(PER_NODE, LENGTH)
    peak, row_time = peak_flops(), row_seconds(len(planted.community))
    for d, window, block, rate, target in SETTINGS:
        trainer = Trainer(len(planted.community), dim=d, window=window, block=block, rate=rate)
        peer = Peer(walks, d, window)
        ours, theirs = in_turns(partial(trainer.speed, walks), peer.speed)
        yield Result(
            bench="skipgram",
            setting=f"{trainer}, 1 thread",
            ours=ours,
            unit="tokens/s",
            peer=f"{PEER}, 1 worker",
            peer_value=theirs,
            ratio=ours / theirs,
            quality=quality(planted, trainer.epochs(walks)),
            peer_quality=quality(planted, peer.epochs(len(planted.community))),
            ceiling=ceiling(d, window, trainer.settings.block, peak, row_time),
            target=f"{target} x",
        )
    d, window, block, rate, _ = SETTINGS[0]
    plain = Trainer(len(planted.community), dim=d, window=window, block=block, rate=rate)
    yield defaults(planted, walks, plain)
    yield threads(walks, plain, max(2, options.threads))
    for count, most in ATTRIBUTES:
        yield attributes(walks, plain, count, most)


class Trainer:
    """The kernel that the worker runs."""

    def __init__(self, n: int, hardest_of: int = 1, **changed: Any) -> None:
        """`changed` are the settings that are not the worker's. A negative is one draw, as the
        peer's, if nothing else is said."""
        self.settings, self.hardest_of = replace(ModelSettings(), **changed), hardest_of
        self.n = n
        items = np.arange(n, dtype=np.int32)
        self.pool = negatives.pool(items, np.ones(n, np.float32), 0.0)

    def __str__(self) -> str:
        s = self.settings
        draws = f", hardest of {self.hardest_of}" if self.hardest_of > 1 else ""
        return f"d={s.dim} w={s.window} k={s.negatives}, block {s.block}, rate {s.rate}{draws}"

    def rows(self) -> Rows:
        """First rows: those of items, then those of 1% as many attributes."""
        s, rng = self.settings, np.random.default_rng(1)
        most = self.n + self.n // 100
        attrs = np.full((most, s.attribute_slots), -1, np.int32)
        attrs[: self.n] = rng.integers(self.n, most, (self.n, s.attribute_slots))
        v = (rng.random((most, s.dim), np.float32) - F32(0.5)) / F32(s.dim)
        return Rows(
            v=v,
            u=np.zeros_like(v),
            acc_v=np.zeros(most, np.float32),
            acc_u=np.zeros(most, np.float32),
            mix=np.zeros((most, 1 + s.attribute_slots), np.float32),
            attrs=attrs,
            dirty=np.zeros(most, np.bool_),
            owned=np.ones(most, np.bool_),
        )

    def learn(self, rows: Rows, walks: NDArray[np.int32], epoch: int, threads: int = 1) -> None:
        s = self.settings
        learn_walks(
            rows, walks, self.pool, seed=s.seed, round_number=epoch, window=s.window,
            shrink=s.shrink_windows, negatives=s.negatives, block=s.block,
            hardest_of=self.hardest_of, pace=Pace.of(s.rate, s.initial_accumulator),
            threads=threads,
        )  # fmt: skip

    def speed(self, walks: NDArray[np.int32], threads: int = 1) -> float:
        """Tokens a second of one epoch, on rows that have moved a little."""
        rows = self.rows()
        self.learn(rows, walks[:500], 0)
        begin = time.perf_counter()
        self.learn(rows, walks, 1, threads)
        return walks.size / (time.perf_counter() - begin)

    def epochs(self, walks: NDArray[np.int32]) -> Iterator[NDArray[np.float32]]:
        """The vectors after each number of EPOCHS."""
        rows = self.rows()
        for epoch in range(max(EPOCHS)):
            self.learn(rows, walks, epoch)
            if epoch + 1 in EPOCHS:
                yield rows.v[: self.n]


class Peer:
    """gensim's skip-gram with negative sampling, its loop in C and its rate decaying."""

    def __init__(self, walks: NDArray[np.int32], d: int, window: int) -> None:
        self.sentences = [[str(slot) for slot in walk if slot >= 0] for walk in walks.tolist()]
        self.part = self.sentences[: len(self.sentences) * 64 // d // 20]
        self.settings = {
            "vector_size": d, "window": window, "sg": 1, "negative": 5, "min_count": 0,
            "sample": 0, "workers": 1, "seed": 1,
        }  # fmt: skip
        self.model = Word2Vec(**self.settings)
        self.model.build_vocab(self.sentences)

    def speed(self) -> float:
        begin = time.perf_counter()
        self.model.train(self.part, total_examples=len(self.part), epochs=1)
        return sum(map(len, self.part)) / (time.perf_counter() - begin)

    def epochs(self, n: int) -> Iterator[NDArray[np.float32]]:
        """The vectors of a model trained for each number of EPOCHS, as the rate's decay wants."""
        for epochs in EPOCHS:
            found = Word2Vec(self.sentences, epochs=epochs, **self.settings).wv
            yield found[[str(slot) for slot in range(n)]]


def quality(planted: Planted, trained: Iterator[NDArray[np.float32]]) -> str:
    measured = (
        f"{epochs} epochs: purity {planted.purity(v):.4f}, links AUC {planted.links(v):.4f}"
        for epochs, v in zip(EPOCHS, trained, strict=True)
    )
    return "; ".join(measured)


def defaults(planted: Planted, walks: NDArray[np.int32], plain: Trainer) -> Result:
    hardest_of = NegativeSettings().hardest_of
    same = Trainer(plain.n, hardest_of)
    ours, theirs = in_turns(partial(same.speed, walks), partial(plain.speed, walks))
    return Result(
        bench="skipgram",
        setting=f"{same} (the worker's settings), 1 thread",
        ours=ours,
        unit="tokens/s",
        peer=str(plain),
        peer_value=theirs,
        ratio=ours / theirs,
        quality=quality(planted, same.epochs(walks)),
        ceiling=f"1 x: {hardest_of} rows are read for each negative",
    )


def threads(walks: NDArray[np.int32], trainer: Trainer, count: int) -> Result:
    many, one = in_turns(partial(trainer.speed, walks, count), partial(trainer.speed, walks))
    cores = len(os.sched_getaffinity(0))
    return Result(
        bench="skipgram",
        setting=f"{trainer}, {count} threads",
        ours=many,
        unit="tokens/s",
        peer="1 thread",
        peer_value=one,
        ratio=many / one,
        ceiling=f"{min(count, cores)} x: {cores} cores for {count} threads, if they are idle",
        target="1.8 x with 2",
    )


def attributes(walks: NDArray[np.int32], plain: Trainer, count: int, most: float) -> Result:
    p = plain.settings
    same: dict[str, Any] = {"dim": p.dim, "window": p.window, "block": p.block, "rate": p.rate}
    mixed = Trainer(plain.n, attribute_slots=count, **same)
    slow, fast = in_turns(partial(mixed.speed, walks), partial(plain.speed, walks))
    return Result(
        bench="skipgram",
        setting=f"{mixed}, {count} attribute rows",
        ours=fast / slow,
        unit="x the time without",
        peer="without attributes",
        peer_value=1.0,
        ratio=fast / slow,
        ceiling="1 x: the products of a group are the same; "
        f"{1 + count} rows of V are read and moved for each context in place of 1",
        target=f"at most {most} x",
    )


# -- the limit -----------------------------------------------------------------------------------


@PASS
def _multiply(n, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    x, y = fill16(F32(1.0000001)), fill16(F32(1e-9))
    a = b = c = d = e = f = g = h = fill16(F32(0))
    for _ in range(n):
        a, b, c, d = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y)
        e, f, g, h = fma(e, x, y), fma(f, x, y), fma(g, x, y), fma(h, x, y)
    store16(out, 0, add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h))))


def peak_flops() -> float:
    """FLOP a second of one core that only multiplies and adds, in registers: 8 sums of 16 lanes."""
    out, n = np.empty(16, np.float32), 2_000_000
    return 8 * 16 * 2 * n / _best(lambda: _multiply(n, out))


@nb.njit(cache=True, nogil=True)
def _add_ones(rows, order):  # type: ignore[no-untyped-def]
    for row in order:
        for i in range(rows.shape[1]):
            rows[row, i] += np.float32(1)


def row_seconds(n: int) -> float:
    """Seconds to read and write 64 bytes of a random row, when tables of n rows are in use."""
    rows = np.zeros((2 * n, 64), np.float32)
    order = np.random.default_rng(1).integers(0, 2 * n, 200_000)
    return _best(lambda: _add_ones(rows, order)) / (len(order) * rows.shape[1] / 16)


def _best(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def ceiling(d: int, window: int, block: int, peak: float, row_time: float) -> str:
    """What is left if all but the products, or all but the traffic of rows, cost nothing."""
    groups = range(0, LENGTH, 8)
    centres = sum(min(LENGTH, c + 8 + window) - max(0, c - window) for c in groups)
    flop = 6 * d * (centres + len(groups) * block) * 8 / LENGTH
    memory = 3 * (d / 16) * row_time
    return (
        f"{peak / flop:,.0f} tokens/s: {flop / 1000:.1f} kFLOP a token at the measured peak of "
        f"{peak / 1e9:.0f} GFLOP/s of a core; 3 rows a token read and written at the measured "
        f"speed of random rows take {1e9 * memory:.0f} ns, hidden only if asked for ahead"
    )
