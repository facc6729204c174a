"""Clicks as columns, the form in which the engine takes them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Clicks:
    """n clicks in the order of their arrival."""

    users: list[str]
    items: list[str]
    times: NDArray[np.int64]
    """Shape (n,): decay time in ms since the epoch."""
    weights: NDArray[np.float32]
    """Shape (n,): more than 0 and finite."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def empty(cls) -> Self:
        return cls([], [], np.empty(0, np.int64), np.empty(0, np.float32))
