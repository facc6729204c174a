"""Many clicks at once, a column for each of their fields."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.hashing import hash_keys
from core.texts import Texts
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
    event_ids: list[str | int | None]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Self:
        records, users, items, times, weights, event_ids = (
            zip(*rows, strict=True) if rows else [()] * 6
        )
        return cls(
            np.array(records, np.int64), Texts.of(users), Texts.of(items),
            np.array(times, np.int64), np.array(weights, np.float64), list(event_ids),
        )  # fmt: skip

    def taken(self, places: NDArray[np.intp]) -> Self:
        """The clicks at `places`, in that order."""
        at = places.tolist()
        return type(self)(
            self.records[places],
            self.users.taken(places),
            self.items.taken(places),
            self.times[places],
            self.weights[places],
            [self.event_ids[i] for i in at],
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
            [event_id for part in parts for event_id in part.event_ids],
        )
        return whole.taken(np.argsort(whole.records, kind="stable"))


class TypeWeights(dict[str | None, float]):
    """Weights by type, NaN for an unknown one."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__(weights.items())
        self[None] = self[DEFAULT_TYPE]

    def __missing__(self, _: str | None) -> float:
        return self.get("*", math.nan)

    def of(self, types: list[str | None]) -> NDArray[np.float64]:
        """Shape (n,)."""
        if types.count(None) == len(types):
            return np.full(len(types), self[None])
        return np.fromiter(map(self.__getitem__, types), np.float64, len(types))


def multiplied(weights: NDArray[np.float64], by: Sequence[float | None]) -> NDArray[np.float64]:
    """The products, shape (n,); None is 1."""
    if by.count(None) == len(by):
        return weights
    # Unlike JSON, MessagePack has infinities.
    with np.errstate(over="ignore", invalid="ignore"):
        return weights * np.array([1.0 if weight is None else weight for weight in by])


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


def as_times(given: Sequence[Any] | NDArray[np.int64], unit: str) -> NDArray[np.int64]:
    """Times in ms, -1 for what is none."""
    try:
        if unit == "s":
            seconds = given if isinstance(given, np.ndarray) else np.array(array("d", given))
            ms = np.rint(np.clip(seconds, -1.0, MAX_TIME) * 1000.0)
            return np.nan_to_num(ms, nan=-1.0).astype(np.int64)
        if unit != "iso":
            whole = given if isinstance(given, np.ndarray) else np.array(array("q", given))
            return whole // UNITS_PER_MS[unit]
    except (TypeError, OverflowError):  # not all are integers of 64 bits
        pass
    return np.array([_time(ts, unit) for ts in given], np.int64)


def _time(ts: str | float, unit: str) -> int:
    try:
        ms = to_ms(ts, unit)
    except ValueError:
        return -1
    return ms if 0 <= ms <= MAX_TIME else -1


def hashes_of(event_ids: list[str | int | None]) -> NDArray[np.uint64] | None:
    """Hashes of 64 bits, 0 where there is no id or an empty one; None if there is none at all."""
    if event_ids.count(None) == len(event_ids):
        return None
    # Surrogates, which JSON can spell, are as good as other text here.
    names = [b"" if i is None else str(i).encode(errors="surrogatepass") for i in event_ids]
    _, hashes = hash_keys(names, 1)
    there = np.array([name != b"" for name in names])
    return np.where(there, np.maximum(hashes, np.uint64(1)), np.uint64(0)) if there.any() else None
