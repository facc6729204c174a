"""`walkstream tune`: which LSH tables and bits reach a recall at the least cost.

Asked of the vectors of a state folder as they are: a sample of items is looked up by several
tables and bits, probe by probe, and what was met is held against the true nearest of all. Items
that were met are compared with the query, so that candidates are what a query costs; each table
costs 12 bytes an item in memory, and an entry an item in RocksDB.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numba as nb
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from core.placing.lsh import Lsh
from core.placing.placement import features
from core.settings import LshSettings
from streamer import outputs
from streamer.errors import WalkstreamError
from streamer.evaluate import picture
from streamer.export.published import Published, from_folder
from streamer.inspect.plot import PALETTE
from streamer.progress import Display
from streamer.state import packing, records
from streamer.state.folders import reading
from streamer.terminal import Console
from streamer.wording import counted

Family = Literal["sign", "p-stable"]
BITS = {"sign": (6, 8, 10, 12, 14, 16, 18), "p-stable": (2, 3, 4, 5, 6, 8)}
TABLES = (4, 8, 16)
PROBES = 256
"""Keys of each table that are looked up at most."""
QUERIES = 300
NEAREST = 10
KEY_COSTS = 2.0
"""Candidates that cost a query as much as to look up one key: both are reads of RocksDB, and a key
is a seek."""
FEWEST = 200
"""With fewer items there is nothing to tune: a query compares all."""


class Tried(msgspec.Struct, frozen=True):
    """One choice of tables and bits."""

    tables: int
    bits: int
    probes: int | None
    """Keys of each table that reach the recall; None where PROBES do not."""
    candidates: float
    """Items met by then, on the mean; the recall of as many."""
    recall: float
    cost: float
    """Candidates, and what looking up the keys of all tables costs beside."""
    curve: list[tuple[float, float]]
    """Candidates and recall, probe by probe."""


class Tuned(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    items: int
    queries: int
    family: str
    recall: float
    best: Tried | None
    in_force: Tried
    tried: list[Tried]


def tune(
    found: Published, centre: NDArray[np.float32], lsh: LshSettings, seed: int, recall: float,
    family: Family, budget: float | None,
) -> Tuned:  # fmt: skip
    """Try all. `centre` float32 [d] is that of the placement, or empty."""
    n = len(found.items)
    if n < FEWEST:
        raise WalkstreamError(
            f"there are {counted(n, 'item')} with a vector, and below {FEWEST} a query compares "
            "nearly all: there is nothing to tune"
        )
    x = features(found.vectors, found.contexts)
    x = x - centre if len(centre) else x
    asked = np.sort(np.random.default_rng(seed).choice(n, min(QUERIES, n), replace=False))
    truth = _nearest(found, asked)
    choices = [
        LshSettings(family, tables, bits, lsh.width, lsh.margin)
        for tables in TABLES for bits in BITS[family]
    ]  # fmt: skip
    tried = []
    with Display("tune", len(choices)) as shown:
        for number, one in enumerate(choices):
            tried.append(_try(one, x, asked, truth, seed, recall))
            shown.show(number + 1, f"{one.tables} tables of {one.bits} bits")
    good = [one for one in tried if one.probes is not None]
    good = [one for one in good if budget is None or one.candidates <= budget]
    best = min(good, key=lambda one: one.cost, default=None)
    return Tuned(
        n, len(asked), family, recall, best, _try(lsh, x, asked, truth, seed, recall), tried
    )


def _nearest(found: Published, asked: NDArray[np.int64]) -> NDArray[np.int32]:
    """The items that come next best, by the vectors: int32 [queries, NEAREST]."""
    v, u = found.vectors, found.contexts
    out = np.empty((len(asked), NEAREST), np.int32)
    for at, item in enumerate(asked.tolist()):
        score = v @ (v[item] + u[item]) + u @ v[item]
        score[item] = -np.inf
        out[at] = np.argpartition(-score, NEAREST)[:NEAREST]
    return out


def _try(
    lsh: LshSettings, x: NDArray[np.float32], asked: NDArray[np.int64],
    truth: NDArray[np.int32], seed: int, recall: float,
) -> Tried:  # fmt: skip
    hashing = Lsh.create(lsh, x.shape[1], seed)
    keys = hashing.keys(x).T
    order = np.argsort(keys, axis=1, kind="stable")
    buckets, members = np.take_along_axis(keys, order, axis=1), order.astype(np.int32)
    met, hits = np.zeros(PROBES), np.zeros(PROBES)
    first = np.empty(len(x), np.int32)
    for at, item in enumerate(asked.tolist()):
        probes = hashing.probes(x[item], PROBES - 1)
        more = np.zeros(PROBES, np.int64)
        _walk(buckets, members, probes, first, more)
        met += np.cumsum(more)
        hits += (first[truth[at]][:, None] <= np.arange(PROBES)).mean(axis=0)
    met, hits = met / len(asked), hits / len(asked)
    reached = np.flatnonzero(hits >= recall)
    probes_needed = int(reached[0]) + 1 if len(reached) else None
    last = (probes_needed or PROBES) - 1
    curve = [(float(met[p]), float(hits[p])) for p in _some(PROBES)]
    cost = float(met[last]) + KEY_COSTS * lsh.tables * (last + 1)
    return Tried(
        lsh.tables, lsh.bits, probes_needed, float(met[last]), float(hits[last]), cost, curve
    )


def _some(n: int) -> Iterator[int]:
    """0, 1, 2, ... ever further apart."""
    at = 0
    while at < n:
        yield at
        at += 1 + at // 4


@nb.njit(cache=True, nogil=True)
def _walk(buckets, members, probes, first, more):  # type: ignore[no-untyped-def]
    """first[item] = the probe by which it is met, PROBES for never; more[p] = items that p meets
    first."""
    first[:] = len(more)
    for p in range(probes.shape[1]):
        for t in range(probes.shape[0]):
            bucket = probes[t, p]
            i = np.searchsorted(buckets[t], bucket)
            while i < buckets.shape[1] and buckets[t, i] == bucket:
                item = members[t, i]
                if first[item] == len(more):
                    first[item] = p
                    more[p] += 1
                i += 1


def run(
    state: Path, recall: float, family: Family | None, budget: float | None, plot: Path | None,
    as_json: bool, force: bool,
) -> None:  # fmt: skip
    """Tune, print, and draw. Errors are those of `export`."""
    if plot is not None:
        picture.check(plot, force)
    found = from_folder(state, None)
    with reading(state) as store:
        space = store.space
        assert space is not None, "it has vectors"
        placement = packing.unpack_placement(store.meta(records.PLACEMENT), space.dim)
    hashing: Family = "sign" if space.lsh_family == "sign" else "p-stable"
    bits = placement.bits_by(space.lsh_bits)
    lsh = LshSettings(hashing, space.lsh_tables, bits, space.lsh_width)
    tuned = tune(found, placement.centre, lsh, space.seed, recall, family or lsh.family, budget)
    if as_json:
        print(msgspec.json.encode(tuned).decode())
    else:
        _show(tuned)
    if plot is not None:
        outputs.write("--plot", plot, draw(tuned), force)


def _show(tuned: Tuned) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("tables", "bits", "probes of each", "candidates", "of all", "cost", "recall@10"):
        table.add_column(column, justify="right")

    def row(one: Tried, mark: str = "") -> Sequence[str]:
        probes = str(one.probes) if one.probes else f"over {PROBES}"
        return (
            str(one.tables), str(one.bits), probes, f"{one.candidates:,.0f}",
            f"{one.candidates / tuned.items:.1%}", f"{one.cost:,.0f}", f"{one.recall:.3f}{mark}",
        )  # fmt: skip

    for one in tuned.tried:
        table.add_row(*row(one, " <" if one == tuned.best else ""))
    table.add_section()
    table.add_row(*row(tuned.in_force, " in force"))
    Console().print(table)
    print(
        f"{counted(tuned.items, 'item')}, {tuned.queries} queries of the {tuned.family} family; "
        f"wanted is a recall of {tuned.recall:g}"
    )
    if tuned.best is None:
        print("none of these reaches it within the candidates: take more, or a lower recall")
        return
    print(
        f"\nThe least cost: candidates, and {KEY_COSTS:g} for each key of each table. For the next "
        "model: the tables\nof this one are part of its space, and change with `walkstream reset "
        "--topics`.\n"
        f'\n[lsh]\nfamily = "{tuned.family}"\ntables = {tuned.best.tables}\n'
        f"bits = {tuned.best.bits}"
    )


def draw(tuned: Tuned) -> bytes:
    """A PNG: recall by candidates, a line for each number of bits with 8 tables."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    plane = figure.add_subplot()
    shown = [one for one in tuned.tried if one.tables == 8]
    for number, one in enumerate(shown):
        candidates, recall = zip(*one.curve, strict=True)
        plane.plot(
            candidates, recall, marker=".", color=PALETTE[number % len(PALETTE)],
            label=f"{one.tables} tables of {one.bits} bits",
        )  # fmt: skip
    plane.axhline(tuned.recall, color="#888888", linestyle="--", linewidth=1)
    plane.set_xscale("log")
    plane.set_xlabel(f"candidates, of {tuned.items:,} items")
    plane.set_ylabel(f"recall of the true {NEAREST} nearest")
    plane.set_ylim(0, 1.02)
    plane.grid(alpha=0.25)
    plane.spines[["top", "right"]].set_visible(False)
    plane.legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
