"""Makes kernels ready before the first click: a first start compiles them, any other loads them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
from numba.core.event import Listener, install_listener

from core.clicks import Clicks
from core.engine import Engine
from core.graph.written import load_nodes, nodes
from core.placing.matching import best_pairs
from core.rounds import Inputs
from core.settings import AdmissionSettings, Settings

USERS, ITEMS = 4, 6


class _Compiling(Listener):
    """Calls `on_first` when numba compiles its first kernel; it loads those of its cache."""

    def __init__(self, on_first: Callable[[], None]) -> None:
        self.on_first, self.began = on_first, False

    def on_start(self, event: Any) -> None:
        if not self.began:
            self.began = True
            self.on_first()

    def on_end(self, event: Any) -> None:
        """numba asks every listener for this method."""


def listening(compiling: Callable[[], None]) -> AbstractContextManager[object]:
    """A context in which `compiling` is called before the first kernel that numba compiles.

    If numba's cache has all kernels, it is never called.
    """
    return install_listener("numba:compile", _Compiling(compiling))


def warm_up(settings: Settings) -> None:
    """Run every kernel that an engine with these settings uses, on a few clicks made up for it."""
    if settings.admission.is_on:  # and these clicks are enough
        settings = replace(settings, admission=AdmissionSettings(min_events=2, min_users=2))
    engine = Engine(settings)
    for _ in range(2):  # a round can rank only what the round before made known
        outputs = engine.step(
            Inputs(_clicks(), [(item, ["attribute"]) for item in ("0", "unclicked")])
        )
    changes = outputs.changes
    assert changes is not None
    restored = Engine(settings)
    slots = np.arange(len(engine.vocabulary), dtype=np.int32)
    load_nodes(restored.catalogue, nodes(engine.catalogue, slots, 0, engine.scale), 0, engine.scale)
    restored.catalogue.admission.load([engine.catalogue.admission.entries()])
    restored.fold_again(outputs.evidence, 1)
    restored.load_rows([(changes.keys, changes.rows)])
    restored.step(Inputs(Clicks.empty(), [("0", None)]))  # an item leaves
    if settings.clusters.update == "anew":
        best_pairs(np.eye(2, dtype=np.int64))


def _clicks() -> Clicks:
    """Every user clicks every item, one after the other, at one moment."""
    n = USERS * ITEMS
    return Clicks(
        users=[str(user) for user in range(USERS) for _ in range(ITEMS)],
        items=[str(item) for item in range(ITEMS)] * USERS,
        times=np.ones(n, np.int64),
        weights=np.ones(n, np.float32),
    )
