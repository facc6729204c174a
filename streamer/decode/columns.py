"""Many clicks at once, a column for each of their fields."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.ids.hashing import hash_texts
from core.ids.texts import Texts
from streamer.decode.fields import DEFAULT_TYPE, MAX_TIME, UNITS_PER_MS, Row, to_ms
from streamer.decode.formats import MAX_ID_BYTES


@dataclass(frozen=True)
class Columns:
    """Clicks on their way: the fields of `Row`, each for all of n clicks."""

    records: NDArray[np.int64]
    users: Texts
    items: Texts
    times: NDArray[np.int64]
    weights: NDArray[np.float64]
    event_ids: Texts
    """An empty one is none."""

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        records, users, items, times, weights, event_ids = (
            zip(*rows, strict=True) if rows else [()] * 6
        )
        return cls(
            np.array(records, np.int64), Texts.of(users), Texts.of(items),
            np.array(times, np.int64), np.array(weights, np.float64), as_event_ids(event_ids),
        )  # fmt: skip

    def taken(self, indices: NDArray[np.intp]) -> Self:
        """The clicks at `indices`, in that order."""
        return type(self)(
            self.records[indices],
            self.users.taken(indices),
            self.items.taken(indices),
            self.times[indices],
            self.weights[indices],
            self.event_ids.taken(indices),
        )

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """All clicks in the order of the records; those of a record are all in one part."""
        if len(parts) == 1:
            return parts[0]
        whole = cls(
            np.concatenate([part.records for part in parts]),
            Texts.joined([part.users for part in parts]),
            Texts.joined([part.items for part in parts]),
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.weights for part in parts]),
            Texts.joined([part.event_ids for part in parts]),
        )
        return whole.taken(np.argsort(whole.records, kind="stable"))


class TypeWeights(dict[str | None, float]):
    """Weights by type, NaN for an unknown one."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights.items())
        self[None] = self[DEFAULT_TYPE]

    def __missing__(self, _: str | None) -> float:
        return self.get("*", math.nan)

    def of(self, types: Sequence[str | None]) -> NDArray[np.float64]:
        """Shape (n,). Of Texts, an empty one is None."""
        if isinstance(types, Texts):
            if not types.sizes.any():
                return np.full(len(types), self[None])
            # There are few: each is looked up once.
            _, first, which = np.unique(hash_texts(types), return_index=True, return_inverse=True)
            return np.array([self[name or None] for name in types.taken(first)])[which]
        if types.count(None) == len(types):
            return np.full(len(types), self[None])
        return np.fromiter(map(self.__getitem__, types), np.float64, len(types))


def multiplied(
    weights: NDArray[np.float64], by: Sequence[float | None] | NDArray[np.float64]
) -> NDArray[np.float64]:
    """The products, shape (n,); None is 1."""
    if not isinstance(by, np.ndarray):
        if by.count(None) == len(by):
            return weights
        by = np.array([1.0 if weight is None else weight for weight in by])
    # What is spelled may be beyond float64, and MessagePack has infinities.
    with np.errstate(over="ignore", invalid="ignore"):
        return weights * by


def at_most(given: Sequence[float | None] | NDArray[np.float64], most: float) -> NDArray[np.bool]:
    """Which are not more, shape (n,); None is 1."""
    if not isinstance(given, np.ndarray):
        if given.count(None) == len(given):
            return np.ones(len(given), np.bool)
        given = np.array([1.0 if weight is None else weight for weight in given])
    return given <= most


def as_ids(given: Sequence[Any]) -> tuple[Texts, NDArray[np.bool]]:
    """Ids as texts, and which of them have a length that fits."""
    try:
        texts = Texts.of(given)
    except TypeError:  # an integer
        texts = Texts.of(list(map(str, given)))
    return texts, (texts.sizes > 0) & (texts.sizes <= MAX_ID_BYTES)


def key_text(key: bytes | None) -> str:
    """A key as text; an empty one, which is no id, if it is not UTF-8."""
    try:
        return key.decode() if key else ""
    except UnicodeDecodeError:
        return ""


def as_times(given: Sequence[Any] | NDArray[np.number], unit: str) -> NDArray[np.int64]:
    """Times in ms, -1 for what is none."""
    try:
        if unit == "s":
            seconds = given if isinstance(given, np.ndarray) else np.array(array("d", given))
            ms = np.rint(np.clip(seconds, -1.0, MAX_TIME) * 1000.0)
            return np.nan_to_num(ms, nan=-1.0).astype(np.int64)
        if unit in UNITS_PER_MS:
            whole = given if isinstance(given, np.ndarray) else np.array(array("q", given))
            return whole.astype(np.int64, copy=False) // UNITS_PER_MS[unit]
    except (TypeError, OverflowError):  # not all are integers of 64 bits
        pass
    return np.array([_time(ts, unit) for ts in given], np.int64)


def _time(ts: str | float, unit: str) -> int:
    try:
        ms = to_ms(ts, unit)
    except ValueError:
        return -1
    return ms if 0 <= ms <= MAX_TIME else -1


def as_event_ids(given: Sequence[str | int | None]) -> Texts:
    """Event ids as texts, empty for none."""
    if isinstance(given, Texts):
        return given
    return Texts.of(["" if event_id is None else str(event_id) for event_id in given])


def hashes_of(event_ids: Texts) -> NDArray[np.uint64] | None:
    """Hashes of 64 bits, 0 where there is no id; None if there is none at all."""
    there = event_ids.sizes > 0
    if not there.any():
        return None
    return np.where(there, np.maximum(hash_texts(event_ids), np.uint64(1)), np.uint64(0))
