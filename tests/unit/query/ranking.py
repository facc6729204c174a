"""What a query has to answer, worked out from the rows themselves."""

import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import unit_rows
from streamer.query.index import Index, Mode
from streamer.state.store import Store


def tables(store: Store) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Items with a vector, V^ and U^."""
    keys, rows = store.all_rows()
    at = np.flatnonzero(rows["published"] > 0)
    v, u = (unit_rows(rows[name][at].astype(np.float32)) for name in ("pub_v", "pub_u"))
    return [keys[i].decode() for i in at], v, u


def scores(store: Store, weights: dict[str, float], mode: Mode) -> dict[str, float]:
    """Of all other items for weighted ones, term by term as in the definition."""
    names, v, u = tables(store)
    total = np.zeros(len(names))
    for item, weight in weights.items():
        at = names.index(item)
        total += weight * (v @ v[at])
        if mode != "similar":
            total += weight * (u @ v[at] + v @ u[at])
    return {name: total[at] for at, name in enumerate(names) if name not in weights}


def best(score: dict[str, float], k: int) -> set[str]:
    return set(sorted(score, key=lambda name: -score[name])[:k])


def recall(store: Store, items: list[str], mode: Mode, resident: bool) -> tuple[float, float]:
    """Share of the true ten nearest that are found, and the mean number of candidates."""
    names, v, u = tables(store)
    index = Index(store, resident)
    hits, looked = [], []
    for item in items:
        answer = index.neighbours([item], 10, mode)
        at = names.index(item)
        score = v @ v[at] if mode == "similar" else v @ v[at] + u @ v[at] + v @ u[at]
        score[at] = -np.inf
        wanted = {names[i] for i in np.argsort(-score)[:10]}
        hits.append(len(wanted & {n.item for n in answer.neighbours}) / 10)
        looked.append(answer.candidates)
    return float(np.mean(hits)), float(np.mean(looked))
