"""Kernels made ready before the first click: compiled on a first start, loaded on every other."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numba.core.event import Listener, install_listener

from core.clicks import Clicks
from core.engine import Engine
from core.graph.graph import Graph
from core.rounds import Inputs
from core.settings import Settings

USERS, ITEMS = 4, 6


class _Compiling(Listener):
    """Calls back when numba begins to compile, which it does not if its cache has the kernel."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self.tell, self.told = tell, False

    def on_start(self, event: Any) -> None:
        if not self.told:
            self.told = True
            self.tell()

    def on_end(self, event: Any) -> None:
        """A listener must have it."""


def listening(compiling: Callable[[], None]) -> AbstractContextManager[object]:
    """Calls `compiling` before the first kernel that has to be compiled meanwhile, and not at all
    if numba's cache has all of them."""
    return install_listener("numba:compile", _Compiling(compiling))


def warm_up(settings: Settings) -> None:
    """Run every kernel that an engine with these settings uses, on a few clicks made up for it."""
    engine = Engine(settings)
    for _ in range(2):  # what a round ranks is known from the round before
        outputs = engine.step(Inputs(_clicks(), [("0", ["attribute"])]))
    changes = outputs.changes
    assert changes is not None
    Engine(settings).load_rows(changes.keys, changes.rows)
    restored = Graph(settings.graph.max_degree)
    restored.reserve(1)
    restored.put_row(0, *engine.graph.row(0), 0)


def _clicks() -> Clicks:
    """Every user clicks every item, one after the other, at one moment."""
    n = USERS * ITEMS
    return Clicks(
        users=[str(user) for user in range(USERS) for _ in range(ITEMS)],
        items=[str(item) for item in range(ITEMS)] * USERS,
        times=np.ones(n, np.int64),
        weights=np.ones(n, np.float32),
    )
