"""On a real shop's log, the vectors find what people buy together, and variants of one product."""

import gzip
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.placing.clusters import unit_rows
from core.rounds import Inputs
from core.settings import DAY_MS, Duration, GraphSettings, Settings

EVENTS, ROUND = 60_000, 2000
SETTINGS = replace(Settings(), graph=GraphSettings(half_life=Duration(30 * DAY_MS)))


def rounds(path: Path) -> Iterator[Clicks]:
    with gzip.open(path, "rt") as lines:
        rows = [line.split("\t") for line, _ in zip(lines, range(EVENTS), strict=False)]
    for begin in range(0, EVENTS, ROUND):
        users, items, times, _ = zip(*rows[begin : begin + ROUND], strict=True)
        weights = np.ones(len(users), np.float32)
        yield Clicks(list(users), list(items), np.array(times, np.int64), weights)


def transitions(clicks: Clicks, last: dict[str, tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Item and next item of each user within half an hour; `last` is carried over."""
    for user, item, time in zip(clicks.users, clicks.items, clicks.times.tolist(), strict=True):
        before = last.get(user)
        last[user] = item, time
        if before and before[0] != item and time - before[1] <= 1_800_000:
            yield before[0], item


class Ranker:
    """Ranks all items for a query item, as the engine stands now."""

    def __init__(self, engine: Engine) -> None:
        self.engine, rows = engine, engine.model.rows
        self.v = unit_rows(rows.v[engine.items])
        self.u = unit_rows(rows.u[engine.items])
        self.place = {int(slot): at for at, slot in enumerate(engine.items)}

    def at(self, item: str) -> int | None:
        slot = self.engine.vocabulary.get(item)
        return None if slot is None else self.place.get(slot)

    def by_vectors(self, a: int) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = (self.v + self.u) @ self.v[a] + self.v @ self.u[a]
        return scores

    def by_covisits(self, a: int) -> NDArray[np.float32]:
        scores = np.zeros(len(self.v), np.float32)
        nbr, weight = self.engine.graph.row(int(self.engine.items[a]))
        scores[[self.place[int(slot)] for slot in nbr]] = weight
        return scores


def rank(scores: NDArray[np.float32], a: int, b: int) -> float:
    """Rank of b from 1; equal scores share the middle of their ranks, and a is not ranked."""
    others = np.delete(scores, [a, b])
    return float(1 + (others > scores[b]).sum() + (others == scores[b]).sum() / 2)


@pytest.fixture(scope="module")
def learned(shared_data: Path) -> tuple[Engine, dict[str, list[bool]]]:
    """The engine after the log, and the hits at 20 of its second half, each round ranked before
    it was learned."""
    engine, last = Engine(SETTINGS), dict[str, tuple[str, int]]()
    hits: dict[str, list[bool]] = {"vectors": [], "co-visitation": []}
    for n, clicks in enumerate(rounds(shared_data / "online-retail-2009-2011/events.tsv.gz")):
        pairs = list(transitions(clicks, last))[::8]
        if n * ROUND >= EVENTS // 2:
            ranker = Ranker(engine)
            for before, after in pairs:
                a, b = ranker.at(before), ranker.at(after)
                known = a is not None and b is not None
                for name, score in (
                    ("vectors", ranker.by_vectors),
                    ("co-visitation", ranker.by_covisits),
                ):
                    hits[name].append(known and rank(score(a or 0), a or 0, b or 0) <= 20)
        engine.step(Inputs(clicks, closes_commit=n % 8 == 7))
    return engine, hits


def test_vectors_find_the_next_item_at_least_as_often_as_decayed_covisits(
    learned: tuple[Engine, dict[str, list[bool]]],
) -> None:
    _, hits = learned
    share = {name: float(np.mean(found)) for name, found in hits.items()}
    print(f"HR@20 over {len(hits['vectors']):,} transitions: {share}")
    assert len(hits["vectors"]) > 2000
    assert share["vectors"] >= share["co-visitation"]
    assert share["vectors"] > 0.25


def test_variants_of_a_product_are_near_each_other(
    learned: tuple[Engine, dict[str, list[bool]]], shared_data: Path
) -> None:
    engine, _ = learned
    with gzip.open(shared_data / "online-retail-2009-2011/items.tsv.gz", "rt") as lines:
        base = {row[0]: row[2] for row in (line.split("\t") for line in lines)}
    ids = np.array([base.get(engine.vocabulary.keys[s] or "", "") for s in engine.items])
    v = unit_rows(engine.model.rows.v[engine.items])
    cosine = v @ v.T
    np.fill_diagonal(cosine, -1.0)
    near = np.argsort(-cosine, axis=1)[:, :10]
    same = ids[:, None] == ids[near]
    has_variant = (ids[:, None] == ids[None, :]).sum(axis=1) > 1
    found = float(same[has_variant].any(axis=1).mean())
    chance = 10 / len(ids)
    print(f"a variant is among the ten nearest of {found:.0%}; by chance of about {chance:.1%}")
    assert found > 40 * chance
