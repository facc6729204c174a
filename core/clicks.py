"""Clicks as columns, the form in which the engine takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

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
    """Shape (n,): finite, and more than 0; less than 0 for an impression, which is no click: the
    item was shown, and counts for so much less than 0."""
    event_ids: NDArray[np.uint64] | None = None
    """Shape (n,): hashes of the event ids, 0 for a click without one; None if no click has one."""
    partitions: NDArray[np.int32] | None = None
    """Shape (n,): the partition of the log that each is from; None if all are from 0."""
    offsets: NDArray[np.int64] | None = None
    """Shape (n,): where each stands in it. Only the evidence tells of it."""

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The clicks of all parts."""

        def column(name: str, kind: type[np.generic]) -> NDArray[Any] | None:
            """A column that parts may lack, and then have zeros; None if all lack it."""
            given = [getattr(part, name) for part in parts]
            if all(one is None for one in given):
                return None
            none = [np.zeros(len(part), kind) for part in parts]
            return np.concatenate([n if g is None else g for g, n in zip(given, none, strict=True)])

        return cls(
            Texts.joined([Texts.of(part.users) for part in parts]),
            Texts.joined([Texts.of(part.items) for part in parts]),
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.weights for part in parts]),
            column("event_ids", np.uint64),
            column("partitions", np.int32),
            column("offsets", np.int64),
        )

    @property
    def without_impressions(self) -> Self:
        is_click = self.weights > 0.0
        return self if is_click.all() else self.at(is_click)

    def at(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """The clicks where `chosen`, bool [n], is true, or those that it numbers."""
        return type(self)(
            Texts.of(self.users).taken(chosen),
            Texts.of(self.items).taken(chosen),
            *self._columns(chosen),
        )

    def parts(self, size: int) -> list[Self]:
        """The clicks in order, at most `size` in each part; at least one part."""
        edges = range(0, max(len(self), 1), size)
        return [self._part(slice(begin, begin + size)) for begin in edges]

    def _part(self, at: slice) -> Self:
        return type(self)(self.users[at], self.items[at], *self._columns(at))

    def _columns(self, at: Any) -> Iterator[Any]:
        """All columns, there."""
        for name in ("times", "weights", "event_ids", "partitions", "offsets"):
            column = getattr(self, name)
            yield None if column is None else column[at]

    @classmethod
    def empty(cls) -> Self:
        return cls([], [], np.empty(0, np.int64), np.empty(0, np.float32))
