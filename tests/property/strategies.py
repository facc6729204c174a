"""Small worlds for the engine: few users and items, and times that cross every boundary."""

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from core.clicks import Clicks
from core.learning.tiers import Tiers
from core.settings import (
    AdmissionSettings,
    ClusterSettings,
    CorpusSettings,
    Duration,
    GraphSettings,
    LshSettings,
    MajorSettings,
    ModelSettings,
    NegativeSettings,
    PublishSettings,
    SessionSettings,
    Settings,
    SizeSettings,
    WalkSettings,
)

START_MS = 1_700_000_000_000
HALF_LIFE = 1000
GAP = 500
HORIZON = 8 * HALF_LIFE

ALL_ADMITTED = AdmissionSettings()

Click = tuple[str, str, int, float, int]
"""User, item, time, weight, hash of the event id or 0."""

LEAPS = [GAP, GAP + 1, 2 * HALF_LIFE, HORIZON, 64 * HALF_LIFE, 200 * HALF_LIFE]
"""Steps of event time past a session, a sweep, a horizon or a landmark."""


def small_settings(
    *, horizon: int = HORIZON, max_degree: int = 4, max_events: int = 500, event_ids: int = 2,
    min_drift: float = 0.01, against: Any = "scored", corpus: Any = "walks", bits: int = 3,
    clusters: Mapping[str, Any] = MappingProxyType({}),
    admission: AdmissionSettings = ALL_ADMITTED, tiers: Tiers = (), **model: Any,
) -> Settings:  # fmt: skip
    return Settings(
        session=SessionSettings(
            gap=Duration(GAP), length=3, max_events=max_events, event_ids=event_ids, visits=64
        ),
        graph=GraphSettings(
            half_life=Duration(HALF_LIFE), horizon=Duration(horizon), max_degree=max_degree
        ),
        admission=admission,
        walks=WalkSettings(per_node=2, length=6),
        corpus=CorpusSettings(corpus, "shuffle", 0.05 if corpus == "both" else 0.0),
        negatives=NegativeSettings(against, spare_neighbours=against == "similar"),
        model=ModelSettings(
            **{"dim": tiers[-1][1] if tiers else 16, "block": 4, "window": 2} | model
        ),
        size=SizeSettings(tiers),
        clusters=ClusterSettings(count=2, min_items=3, **clusters),
        lsh=LshSettings(tables=2, bits=bits),
        major=MajorSettings(every=Duration(3 * HALF_LIFE)),
        publish=PublishSettings(min_drift=min_drift),
    )


holding_back = st.builds(
    AdmissionSettings,
    min_events=st.integers(1, 4),
    min_users=st.integers(1, 3),
    forget=st.sampled_from([0, GAP, HORIZON]).map(Duration),
    most=st.sampled_from([4, 1000]),
).filter(lambda one: one.is_on)
admissions = st.sampled_from([ALL_ADMITTED]) | holding_back


@st.composite
def click_lists(
    draw: st.DrawFn,
    *,
    users: int = 4,
    items: int = 9,
    size: int = 60,
    late: int = 0,
    with_ids: bool = False,
    shown: float = 0.0,
) -> list[Click]:
    """Clicks in the order of arrival; each may be up to `late` ms older than the ones before.

    `with_ids` gives some of them event ids, of so few that many come again. The share `shown` are
    impressions.

    They follow from a seed, so that long lists are as likely as short ones.
    """
    rng = Random(draw(st.integers(0, 2**32)))
    leap = draw(st.sampled_from([0.0, 0.02, 0.1, 0.5]))
    now, out = START_MS, []
    for _ in range(draw(st.integers(0, size))):
        now += rng.choice(LEAPS) if rng.random() < leap else rng.choice([0, 0, 1, 20, 100])
        lag = rng.choice([0, 0, 0, late // 10, late])
        user, item = rng.randrange(users), rng.randrange(items)
        weight = rng.choice([1.0, 1.0, 0.25, 3.7])
        event_id = rng.choice([0, 0, 1, 2, 3, 2**64 - 1]) if with_ids else 0
        if shown and rng.random() < shown:
            weight = -1.0
        out.append((f"u{user}", f"i{item}", now - lag, weight, event_id))
    return out


def to_clicks(rows: list[Click]) -> Clicks:
    ids = [event_id for _, _, _, _, event_id in rows]
    return Clicks(
        [user for user, _, _, _, _ in rows],
        [item for _, item, _, _, _ in rows],
        np.array([time for _, _, time, _, _ in rows], np.int64),
        np.array([weight for _, _, _, weight, _ in rows], np.float32),
        np.array(ids, np.uint64) if any(ids) else None,
    )
