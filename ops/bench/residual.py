"""Vectors as a cluster's centre and a residual in bytes: what a record takes, how well it ranks.

    .venv/bin/python ops/bench/residual.py LOG [--columns NAMES] [--time UNIT] [--set KEY=VALUE ...]
        [--strength S ...]

A log goes through one engine for each strength of `residual.strength`. Each round is ranked before
it is learned, by the vectors, and by what readers of int8 residuals have in place of them, at once.
The lengths of records are those of the first engine.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.engine import Engine
from core.learning.skipgram import Rows
from core.placing.clusters import unit_rows
from core.placing.quantised import centres, quantised, restored
from core.rounds import Changes, Inputs
from streamer import kernels, vectors
from streamer.evaluate.compare import difference
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Model
from streamer.evaluate.rounds import Log
from streamer.files.readers import Source
from streamer.files.replay import ALL
from streamer.settings.load import load

DEPTH = 20


@dataclass(frozen=True)
class Bytes(Model):
    """The ranker of those who read residuals."""

    def vectors(
        self, asked: Asked, rows: Rows | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        v, u = super().vectors(asked, rows)
        engine = asked.engine
        columns, centroids = engine.model.columns, engine.placement.centroids
        cluster = columns.cluster[engine.items]
        cluster = np.where(columns.epoch[engine.items] == engine.placement.epoch, cluster, -1)
        centre = centres(cluster, centroids, v.shape[1])
        own, context = restored(*quantised(v - centre)), restored(*quantised(u))
        return unit_rows(centre + own), unit_rows(context)


def record_bytes(changes: Changes) -> Counter[str]:
    """The bytes of all records, by format and form."""
    out = Counter[str]()
    for fmt in ("json", "msgpack"):
        for form in ("full", "residual"):
            records = vectors.records(changes, "space", fmt, form)
            out[f"{fmt} {form}"] = sum(len(value) for _, value in records if value is not None)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--columns")
    parser.add_argument("--time", default="ms")
    parser.add_argument("--sample", type=int, default=64)
    parser.add_argument("--strength", type=float, nargs="+", default=[0.0])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    asked = parser.parse_args()
    configs = [load(None, [*asked.overrides, f"residual.strength={s}"], {}) for s in asked.strength]
    engines = [Engine(config.engine_settings) for config in configs]
    names = asked.columns.split(",") if asked.columns else None
    source = Source([asked.log], names, asked.time)
    log, past = Log(configs[0], source), Past(configs[0].engine_settings)
    kernels.prepare(configs[0].engine_settings)
    rankers = {"float32": Model(("next",)), "int8": Bytes(("next",))}
    hits: dict[tuple[float, str], list[NDArray[np.bool_]]] = {
        (s, name): [] for s in asked.strength for name in rankers
    }
    clicks, sizes, published = [0], Counter[str](), 0
    for taken in log:
        if taken is None:
            continue
        positions = past.take(taken.clicks, asked.sample)
        for strength, engine in zip(asked.strength, engines, strict=True):
            one = Asked(engine, past, positions, False)
            for name, ranker in rankers.items():
                found = ranker(one)["next"] < DEPTH if len(one) else np.zeros(0, np.bool_)
                hits[strength, name].append(found)
        past.learn()
        for engine in engines:
            inputs = Inputs(taken.clicks, closes_commit=taken.closes_commit, room=ALL, budget=ALL)
            changes = engine.step(inputs).changes
            if changes is not None and engine is engines[0]:
                sizes += record_bytes(changes)
                published += len(changes.published)
        clicks.append(past.clicks)
    late = np.array(clicks[1:]) > past.clicks // 2
    of = {
        key: np.concatenate([part for part, is_late in zip(parts, late, strict=True) if is_late])
        for key, parts in hits.items()
    }
    base = of[asked.strength[0], "float32"].astype(np.float64)
    print("| `residual.strength` | vectors | HR@20 | to the first |\n|---|---|---|---|")
    for (strength, name), found in of.items():
        mean, error = difference(found.astype(np.float64), base)
        print(f"| {strength:g} | {name} | {found.mean():.4f} | {mean:+.4f} ± {error:.4f} |")
    print(f"\n| a record, mean of {published:,} | bytes |\n|---|---|")
    for name, size in sizes.items():
        print(f"| {name} | {size / published:.0f} |")


if __name__ == "__main__":
    main()
