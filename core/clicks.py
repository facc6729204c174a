"""Clicks as columns, the form in which the engine takes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from core.ids.texts import Texts


@dataclass(frozen=True)
class Clicks:
    """n clicks in the order of their arrival."""

    users: Sequence[str]
    """Any sequence of ids will do. Of `core.ids.texts.Texts` no string is made for each."""
    items: Sequence[str]
    times: NDArray[np.int64]
    """Shape (n,): decay time in ms since the epoch."""
    weights: NDArray[np.float32]
    """Shape (n,): more than 0 and finite."""
    event_ids: NDArray[np.uint64] | None = None
    """Shape (n,): hashes of the event ids, 0 for a click without one; None if no click has one."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The clicks of all parts."""
        ids = [part.event_ids for part in parts]
        none = [np.zeros(len(part), np.uint64) for part in parts]
        filled = [n if i is None else i for i, n in zip(ids, none, strict=True)]
        return cls(
            Texts.joined([Texts.of(part.users) for part in parts]),
            Texts.joined([Texts.of(part.items) for part in parts]),
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.weights for part in parts]),
            None if all(i is None for i in ids) else np.concatenate(filled),
        )

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """The clicks where `chosen`, bool [n], is true, or those that it numbers."""
        return type(self)(
            Texts.of(self.users).taken(chosen),
            Texts.of(self.items).taken(chosen),
            self.times[chosen],
            self.weights[chosen],
            None if self.event_ids is None else self.event_ids[chosen],
        )

    def parts(self, size: int) -> list[Self]:
        """The clicks in order, at most `size` in each part; at least one part."""
        edges = range(0, max(len(self), 1), size)
        return [self._part(slice(begin, begin + size)) for begin in edges]

    def _part(self, at: slice) -> Self:
        ids = None if self.event_ids is None else self.event_ids[at]
        return type(self)(self.users[at], self.items[at], self.times[at], self.weights[at], ids)

    @classmethod
    def empty(cls) -> Self:
        return cls([], [], np.empty(0, np.int64), np.empty(0, np.float32))
