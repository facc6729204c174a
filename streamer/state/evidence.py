"""Evidence: what the clicks of a commit did, in the topic `transitions`, so that nobody has to
decide it again.

A record is one byte, the version of this layout, and a zlib stream of a msgpack array:

  commit, before, rounds, items, users, partitions, offsets, item, user, times, weights, event_ids,
  since, held

`before` is the commit of the record before this one, so that none can be missing without notice.
`rounds` are [number, clicks, gone, forgotten, [births], [ranks]]: of each round how many of the
clicks it has, the items that left before them, the users whose sessions ended before them, and the
items that were born with them, numbered in `items`, with their ranks. `items` and `users` are ids.
The others are columns with one entry a click: an integer column is [first, width, bytes], where the
bytes are the differences from one entry to the next, signed and little-endian, in so many bytes
each; weights are little-endian float32, or one of them if all are equal; event ids are
little-endian uint64, or nothing. `since` says for each round of each item that left: not if it was
clicked at this time (ms) or later. `held` has a bit for each click, the first the highest of its
byte, or nothing where none was held back. Older records lack the last one or two. Sessions go by
the clock of their click's partition; the offset is for people, who find the click in its topic by
it.

Clicks that were left out because they came before are in none. Those past `session.max_events` are
in it: they keep their session open. A commit has as many records as it takes to keep each short;
all of a commit, and all commits, stand in the order in which they happened. What stands there once
more under a number that was there already is what counts: the first was torn.

Where several workers write, nobody knows what others write before it. Such a record has the numbers
0 and 0: its clicks came to one worker, duplicates included, and its rounds have no number and no
births. It is what comes next for whoever reads it, and has the next number.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.ids.texts import Texts
from core.rounds import ANY_TIME, Evidence
from streamer.errors import WalkstreamError

VERSION = 1
WITH_IMPRESSIONS = 2
"""The version of a record with impressions, so that nobody takes them for clicks who knows of none:
these have weights less than 0."""
LEVEL = 1
"""zlib's: the next ones take twice as long and save a twentieth."""
CLICKS = 8000
"""Clicks of a record at most: some 150 kB."""
ID_BYTES = 400_000
"""Bytes of the ids of a record at most, before compression. With 28 bytes of each click beside them
a record stays below 1 MB, which is all that brokers and clients take by default."""

_encode = msgspec.msgpack.Encoder().encode
_T = TypeVar("_T")


class _Heading(msgspec.Struct, array_like=True):
    """The first fields of a record: what is in the others is not decoded."""

    commit: int
    before: int
    rounds: list[tuple[int, int, list[str], list[str], list[int], list[int]]]


class _Packed(_Heading, array_like=True):
    items: list[str]
    users: list[str]
    partitions: tuple[int, int, bytes]
    offsets: tuple[int, int, bytes]
    item: tuple[int, int, bytes]
    user: tuple[int, int, bytes]
    times: tuple[int, int, bytes]
    weights: bytes
    event_ids: bytes
    since: list[list[int]] = []
    held: bytes = b""


UNDECIDED = 0
"""The commit of a record where others write too."""


class Record(NamedTuple):
    """What a record says."""

    commit: int
    before: int
    """The commit of the record before it."""
    rounds: list[Evidence]

    @property
    def is_decided(self) -> bool:
        return self.commit != UNDECIDED

    def after(self, number: int) -> "Record":
        """With a number of its own, which comes after this one."""
        return self if self.is_decided else self._replace(commit=number + 1, before=number)


def pack(commit: int, before: int, rounds: Sequence[Evidence]) -> Iterator[bytes]:
    """The records of a commit, and which one had evidence before it. Rounds that did nothing are
    left out."""
    part: list[Evidence] = []
    clicks = size = 0
    for one, ids in _short(rounds):
        if part and (clicks + len(one.clicks) > CLICKS or size + ids > ID_BYTES):
            yield _packed(commit, before, part)
            before = commit
            part, clicks, size = [], 0, 0
        part.append(one)
        clicks, size = clicks + len(one.clicks), size + ids
    if part:
        yield _packed(commit, before, part)


def _short(rounds: Sequence[Evidence]) -> Iterator[tuple[Evidence, int]]:
    """The rounds that did something, each with the bytes of its ids; what is too much for a record
    as several."""
    for one in filter(None, rounds):
        ids = _sizes(one.clicks.users) + _sizes(one.clicks.items)
        gone = list(one.gone)
        left, ended = _sizes(gone), _sizes(one.forgotten)
        size = int(ids.sum() + left.sum() + ended.sum())
        if len(ids) <= CLICKS and size <= ID_BYTES:
            yield one, size
            continue
        # As they are folded again: sessions end, items leave, and then come the clicks.
        number, nothing, unborn = one.round_number, Clicks.empty(), dict(one.births)
        for begin, end, size in _parts(ended):
            yield Evidence(number, {}, one.forgotten[begin:end], nothing, {}), size
        for begin, end, size in _parts(left):
            some_gone = {name: one.gone[name] for name in gone[begin:end]}
            yield Evidence(number, some_gone, (), nothing, {}), size
        for begin, end, size in _parts(ids):
            some = one.clicks.at(np.arange(begin, end))
            held = None if one.held is None else one.held[begin:end]
            counts = some if held is None else some.at(~held)
            births = {name: unborn.pop(name) for name in counts.items if name in unborn}
            yield Evidence(number, {}, (), some, births, held), size


def _sizes(texts: Sequence[str]) -> NDArray[np.int64]:
    return Texts.of(texts).sizes.astype(np.int64)


def _parts(sizes: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Spans that are short enough for a record, and the bytes of each."""
    begin, behind = 0, np.cumsum(sizes)
    while begin < len(sizes):
        before = int(behind[begin] - sizes[begin])
        end = int(np.searchsorted(behind, before + ID_BYTES, side="right"))
        end = max(begin + 1, min(end, begin + CLICKS))
        yield begin, end, int(behind[end - 1]) - before
        begin = end


def _packed(commit: int, before: int, rounds: Sequence[Evidence]) -> bytes:
    clicks = Clicks.joined([one.clicks for one in rounds])
    items, item = _numbered(clicks.items)
    users, user = _numbered(clicks.users)
    at = {name: n for n, name in enumerate(items)}
    told = [
        (
            one.round_number, len(one.clicks), list(one.gone), list(one.forgotten),
            [at[name] for name in one.births], list(one.births.values()),
        )
        for one in rounds
    ]  # fmt: skip
    weights = clicks.weights
    if len(weights) and (weights == weights[0]).all():
        weights = weights[:1]
    zeros = np.zeros(len(clicks), np.int64)
    packed = _Packed(
        commit, before, told, items, users,
        _thin(zeros if clicks.partitions is None else clicks.partitions),
        _thin(zeros if clicks.offsets is None else clicks.offsets),
        _thin(item), _thin(user), _thin(clicks.times),
        weights.astype("<f4").tobytes(),
        b"" if clicks.event_ids is None else clicks.event_ids.astype("<u8").tobytes(),
        [list(one.gone.values()) for one in rounds] if any(one.gone for one in rounds) else [],
        _held(rounds),
    )  # fmt: skip
    version = WITH_IMPRESSIONS if (weights < 0.0).any() else VERSION
    return bytes([version]) + zlib.compress(_encode(packed), LEVEL)


def _held(rounds: Sequence[Evidence]) -> bytes:
    if all(one.held is None for one in rounds):
        return b""
    none = (np.zeros(len(one.clicks), np.bool_) for one in rounds)
    held = [n if one.held is None else one.held for one, n in zip(rounds, none, strict=True)]
    return np.packbits(np.concatenate(held)).tobytes()


def _numbered(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts in the order in which they come, and the number of each."""
    numbers: dict[str, int] = {}
    out = [numbers.setdefault(text, len(numbers)) for text in texts]
    return list(numbers), np.array(out, np.int64)


def _thin(column: NDArray[Any]) -> tuple[int, int, bytes]:
    if len(column) == 0:
        return 0, 1, b""
    steps = np.diff(column.astype(np.int64))
    low, high = int(steps.min(initial=0)), int(steps.max(initial=0))
    width = next(w for w in (1, 2, 4, 8) if -(1 << 8 * w - 1) <= low and high < 1 << 8 * w - 1)
    return int(column[0]), width, steps.astype(f"<i{width}").tobytes()


def _thick(column: tuple[int, int, bytes], n: int) -> NDArray[np.int64]:
    first, width, steps = column
    out = np.zeros(n, np.int64)
    if n:
        out[0] = first
        out[1:] = np.frombuffer(steps, f"<i{width}")
    return np.cumsum(out)


def unpack(value: bytes) -> Record:
    """What a record says.

    WalkstreamError if it is no record of this version.
    """
    packed = _read(value, _Packed)
    try:
        return Record(packed.commit, packed.before, list(_rounds(packed)))
    except (ValueError, IndexError) as error:
        raise _no_evidence(value, error) from None


class Heading(NamedTuple):
    """What a record says first of all, as in `Record`, and how many clicks it has."""

    commit: int
    before: int
    clicks: int


def heading(value: bytes) -> Heading:
    """WalkstreamError as `unpack`."""
    told = _read(value, _Heading)
    return Heading(told.commit, told.before, sum(one[1] for one in told.rounds))


def _read(value: bytes, kind: type[_T]) -> _T:
    if value[:1] not in (bytes([VERSION]), bytes([WITH_IMPRESSIONS])):
        raise WalkstreamError(
            f"evidence of version {value[:1].hex() or 'none'}, where {VERSION:02x} is expected: an "
            "older walkstream cannot read what a newer one wrote"
        )
    try:
        return msgspec.msgpack.decode(zlib.decompress(value[1:]), type=kind)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise _no_evidence(value, error) from None


def _no_evidence(value: bytes, why: Exception) -> WalkstreamError:
    return WalkstreamError(f"no evidence, but {len(value)} other bytes: {why}")


def _rounds(packed: _Packed) -> Iterator[Evidence]:
    n = sum(one[1] for one in packed.rounds)
    weights = np.frombuffer(packed.weights, "<f4")
    clicks = Clicks(
        Texts.of(packed.users).taken(_thick(packed.user, n)),
        Texts.of(packed.items).taken(_thick(packed.item, n)),
        _thick(packed.times, n),
        np.repeat(weights, n) if len(weights) == 1 else weights,
        np.frombuffer(packed.event_ids, "<u8") if packed.event_ids else None,
        _thick(packed.partitions, n).astype(np.int32),
        _thick(packed.offsets, n),
    )
    held = np.unpackbits(np.frombuffer(packed.held, np.uint8), count=n) if packed.held else None
    end = 0
    times = packed.since or [[ANY_TIME] * len(one[2]) for one in packed.rounds]
    told = zip(packed.rounds, times, strict=True)
    for (number, count, gone, forgotten, births, ranks), since in told:
        begin, end = end, end + count
        born = {packed.items[item]: rank for item, rank in zip(births, ranks, strict=True)}
        left = dict(zip(gone, since, strict=True))
        back = None if held is None else held[begin:end].astype(np.bool_)
        yield Evidence(number, left, forgotten, clicks.at(np.arange(begin, end)), born, back)
