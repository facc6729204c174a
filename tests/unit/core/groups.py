"""Users who click inside groups of items, and an engine that learned from them."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.learning.skipgram import hidden
from core.learning.tiers import Tiers
from core.placing.clusters import unit_rows
from core.rounds import Changes, Inputs
from core.rows import Packed
from core.settings import (
    ClusterSettings,
    Duration,
    GraphSettings,
    LshSettings,
    MajorSettings,
    ModelSettings,
    PublishSettings,
    SessionSettings,
    Settings,
    SizeSettings,
)
from streamer.state import packing

START = 1_700_000_000_000
GAP, HALF_LIFE, HORIZON = 1000, 10_000, 64_000
GROUP = 10
"""Items i0..i9 are one group, i10..i19 the next, and so on."""

Rows = Sequence[tuple[str, str, int]]
Descriptions = Sequence[tuple[str, Sequence[str] | None]]


def settings(
    *, major: int = 0, min_drift: float = 0.01, tiers: Tiers = (), **model: Any
) -> Settings:  # fmt: skip
    return Settings(
        session=SessionSettings(gap=Duration(GAP), length=3),
        graph=GraphSettings(
            half_life=Duration(HALF_LIFE), horizon=Duration(HORIZON), max_degree=16
        ),
        model=ModelSettings(**{"dim": tiers[-1][1] if tiers else 16, "rate": 0.1} | model),
        size=SizeSettings(tiers),
        clusters=ClusterSettings(count=3, min_items=20),
        lsh=LshSettings(tables=2, bits=4),
        major=MajorSettings(every=Duration(major)),
        publish=PublishSettings(min_drift=min_drift),
    )


def clicks(rows: Rows) -> Clicks:
    return Clicks(
        [user for user, _, _ in rows],
        [item for _, item, _ in rows],
        np.array([START + time for _, _, time in rows], np.int64),
        np.ones(len(rows), np.float32),
    )


def step(engine: Engine, rows: Rows, described: Descriptions = ()) -> Changes:
    changes = engine.step(Inputs(clicks(rows), described)).changes
    assert changes is not None
    return changes


def visits(seed: int, at: int, sessions: int = 40, groups: int = 3) -> list[tuple[str, str, int]]:
    """Sessions of four clicks, each inside a group, all at one time."""
    rng, out = Random(seed), []
    for session in range(sessions):
        group = rng.randrange(groups)
        items = [f"i{GROUP * group + item}" for item in rng.sample(range(GROUP), 4)]
        out += [(f"{seed}/{session}", item, at) for item in items]
    return out


def trained(chosen: Settings, rounds: int = 12) -> Engine:
    engine = Engine(chosen, partitions=2)
    for i in range(rounds):
        step(engine, visits(i, at=100 * i))
    return engine


def written(engine: Engine) -> Changes:
    """All that there is to write of an engine."""
    engine.publish_all()
    return step(engine, [])


def unwritten(engine: Engine) -> Callable[[Sequence[bytes]], Packed]:
    """What a worker finds of rows that others own, where they wrote none."""
    return lambda keys: ([], engine.model.pack(engine.items[:0], engine.graph.last_seen))


def restarted(engine: Engine, changes: Changes, **attributes: Any) -> Engine:
    """One that goes on from what was written, as bytes."""
    again = Engine(engine.settings, engine.partitions)
    again.clock, again.versions = engine.clock, engine.versions
    packed = packing.pack_placement(engine.placement)
    again.placement = packing.unpack_placement(packed, engine.settings.model.dim)
    again.load_rows([(changes.keys, changes.rows)], **attributes)
    return again


def vectors(engine: Engine, items: Sequence[str]) -> NDArray[np.float32]:
    slots = [engine.vocabulary.get(item) for item in items]
    return unit_rows(hidden(engine.model.rows, np.array(slots, np.int32)))


def group(number: int) -> list[str]:
    return [f"i{GROUP * number + i}" for i in range(GROUP)]


def gone(changes: Changes) -> dict[bytes, bool]:
    return {g.key: g.was_published for g in changes.gone}


def published(changes: Changes) -> set[bytes]:
    return {changes.keys[at] for at in changes.published}
