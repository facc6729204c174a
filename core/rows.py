"""The layout of a model row: all of an item that cannot be derived from the evidence alone.

It is the value of `model-state` and of the `rows` column family, packed and little-endian, the same
on every worker, so that a row that one worker wrote is applied by another without translation.

The vectors as last published are the end of it, and are left out where they follow from the learned
ones, as those of an item without attributes that leaves: a third of the row.

A row that has fewer dims than its space (`core.learning.tiers`) is written without the others of V
and U, which are zero. Its first byte says so: what a value is, follows from that byte and its
length, whatever the settings are.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import unit_rows

FORMAT = 5
"""Number of this layout, the first byte of each row that has all dims."""

NARROW, STEP = 0x80, 16
"""The first byte of a row of fewer dims is NARROW and so many times STEP as it has."""
_MOST = 0x3F

Packed = tuple[Sequence[bytes], NDArray[np.void]]
"""Keys and their packed rows."""

PUBLISHED = {"v": "pub_v", "u": "pub_u"}
"""The learned vectors, and what of them was last published."""


def row_dtype(dim: int, attribute_slots: int, tables: int) -> np.dtype[np.void]:
    """The packed row of a vector space with these sizes (`space` header)."""
    return np.dtype(
        [
            ("format", "u1"),
            ("version", "<i8"),  # strictly increasing for an item; a row applies only if newer
            ("born_round", "<i8"),  # birth: the order of slots
            ("born_rank", "<i4"),
            ("updates", "<i8"),  # times the item was a centre
            ("heard", "<i4"),  # how many of its clicks the row knows of
            ("last_seen", "<i8"),  # decay time of its last click when it was written, ms
            ("described", "<u8"),  # hash of the attributes that it had, 0 for none
            ("landmark", "<i8"),  # that of the accumulators, ms (`core.learning.adagrad`)
            ("half_life", "<i8"),  # theirs, ms
            ("acc_v", "<f4"),
            ("acc_u", "<f4"),
            ("epoch", "<i4"),  # placement that `cluster` was judged by
            ("cluster", "<i4"),
            ("published", "<i8"),  # version of the last published vector, 0 if none
            ("norms", "<f4", (2,)),  # lengths of hidden and context vector as last published
            ("buckets", "<u8", (tables,)),
            ("mix", "<f4", (1 + attribute_slots,)),  # attribute weights before softmax
            ("v", "<f4", (dim,)),
            ("u", "<f4", (dim,)),
            # Unit rows as last published: drift is measured against them. The last two fields.
            ("pub_v", "<f2", (dim,)),
            ("pub_u", "<f2", (dim,)),
        ]
    )


def marks_of(dims: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The first bytes of rows that have so many dims, 0 for all."""
    return np.where(dims > 0, NARROW + dims // STEP, FORMAT).astype(np.uint8)


def dims_of(marks: NDArray[np.uint8]) -> NDArray[np.int16]:
    """How many dims rows have by their first bytes, 0 for all."""
    return np.where(marks >= NARROW, STEP * (marks.astype(np.int16) - NARROW), 0).astype(np.int16)


def version_of(value: bytes) -> int:
    """The version of a packed row."""
    return int.from_bytes(value[1:9], "little", signed=True)


def is_packed(value: bytes) -> bool:
    """Whether this may be a packed row, of whatever vector space."""
    return len(value) > 9 and (value[0] == FORMAT or NARROW < value[0] <= NARROW + _MOST)


def to_values(rows: NDArray[np.void]) -> list[bytes]:
    """Each row as its bytes, without the dims that it does not have, and without the published
    vectors where these follow from the rest."""
    rows = np.ascontiguousarray(rows)
    n, dtype = len(rows), rows.dtype
    follows = np.ones(n, np.bool_)
    for learned, published in PUBLISHED.items():
        given = np.ascontiguousarray(rows[published]).view(np.uint16)
        follows &= (_derived(rows[learned]).view(np.uint16) == given).all(axis=1)
    whole = rows.view(np.uint8).reshape(n, dtype.itemsize)
    values = [b""] * n
    for mark in np.unique(rows["format"]).tolist():
        at = np.flatnonzero(rows["format"] == mark)
        some = whole if len(at) == n else whole[at]
        parts = _parts(dtype, mark)
        if mark >= NARROW:
            some = np.concatenate([some[:, part] for part in parts], axis=1)
        short = sum(part.stop - part.start for part in parts[:-1])
        packed: list[bytes] = some.view(f"V{some.shape[1]}").ravel().tolist()
        for i, value, is_short in zip(at.tolist(), packed, follows[at].tolist(), strict=True):
            values[i] = value[:short] if is_short else value
    return values


def from_values(values: list[bytes], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The inverse of `to_values`; ValueError if a value is no row of this layout."""
    _check(values, dtype)
    n = len(values)
    rows = np.zeros(n, dtype)
    whole = rows.view(np.uint8).reshape(n, dtype.itemsize)
    marks = np.fromiter((value[0] for value in values), np.int64, n)
    lengths = np.fromiter(map(len, values), np.int64, n)
    follows = np.zeros(n, np.bool_)
    for kind in np.unique(lengths << 8 | marks).tolist():
        length, mark = kind >> 8, kind & 0xFF
        at = np.flatnonzero((lengths == length) & (marks == mark))
        some = values if len(at) == n else [values[i] for i in at.tolist()]
        packed = np.frombuffer(b"".join(some), np.uint8).reshape(len(at), length)
        begin = 0
        for part in _parts(dtype, mark):
            end = begin + part.stop - part.start
            if end <= length:
                whole[at, part] = packed[:, begin:end]
            begin = end
        follows[at] = length < begin
    for learned, published in PUBLISHED.items() if follows.any() else ():
        rows[published][follows] = _derived(rows[learned][follows])
    return rows


def heads(values: list[bytes], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Of rows of this layout what comes before the vectors, as `from_values` has it, and raises."""
    _check(values, dtype)
    names = dtype.names or ()
    head = np.dtype([(name, dtype[name]) for name in names[: names.index("mix")]])
    return np.frombuffer(b"".join([value[: head.itemsize] for value in values]), head)


def _check(values: list[bytes], dtype: np.dtype[np.void]) -> None:
    """ValueError if a value is no row of this layout."""
    lengths = _lengths(dtype)
    kinds = {(value[:1], len(value)) for value in values}
    if any(length not in lengths.get(mark, ()) for mark, length in kinds):
        value = next(value for value in values if not fits(value, dtype))
        mark = value[:1] if value[:1] in lengths else bytes([FORMAT])
        short, whole = lengths[mark]
        raise ValueError(
            f"a model row of {len(value)} bytes, format {value[:1].hex() or 'none'}, where "
            f"{short} or {whole} bytes of format {mark.hex()} are expected"
        )


def fits(value: bytes, dtype: np.dtype[np.void]) -> bool:
    """Whether this is a row of that layout."""
    return len(value) in _lengths(dtype).get(value[:1], ())


@lru_cache
def _lengths(dtype: np.dtype[np.void]) -> dict[bytes, tuple[int, int]]:
    """By first bytes, how long a row is without its published vectors, and with them."""
    out = {}
    for mark in (FORMAT, *range(NARROW + 1, NARROW + -(-dtype["v"].shape[0] // STEP))):
        *learned, published = (part.stop - part.start for part in _parts(dtype, mark))
        out[bytes([mark])] = sum(learned), sum(learned) + published
    return out


@lru_cache
def _parts(dtype: np.dtype[np.void], mark: int) -> list[slice]:
    """What of the bytes of a whole row one with this first byte has, as parts that follow each
    other; the last of them are the published vectors."""
    offset = {name: field[1] for name, field in (dtype.fields or {}).items()}
    published = slice(offset["pub_v"], dtype.itemsize)
    if mark < NARROW:
        return [slice(0, published.start), published]
    own = STEP * (mark - NARROW) * dtype["v"].base.itemsize
    return [slice(0, offset["v"] + own), slice(offset["u"], offset["u"] + own), published]


def _derived(learned: NDArray[np.float32]) -> NDArray[np.float16]:
    """The published vectors of items without attributes, and of attributes."""
    return unit_rows(np.ascontiguousarray(learned)).astype("<f2")
