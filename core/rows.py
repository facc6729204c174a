"""The layout of a model row: all of an item that cannot be derived from the evidence alone.

It is the value of `model-state` and of the `rows` column family, packed and little-endian, the same
on every worker, so that a row that one worker wrote is applied by another without translation.

The vectors as last published are the end of it, and are left out where they follow from the learned
ones, as those of an item without attributes that leaves: a third of the row.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.placing.clusters import unit_rows

FORMAT = 5
"""Number of this layout, the first byte of each row."""

_MARK = bytes([FORMAT])

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


def version_of(value: bytes) -> int:
    """The version of a packed row."""
    return int.from_bytes(value[1:9], "little", signed=True)


def is_packed(value: bytes) -> bool:
    """Whether this may be a packed row, of whatever vector space."""
    return len(value) > 9 and value[0] == FORMAT


def to_values(rows: NDArray[np.void]) -> list[bytes]:
    """Each row as its bytes, without the published vectors where these follow from the rest."""
    values: list[bytes] = rows.view(f"V{rows.dtype.itemsize}").tolist()
    follows = np.ones(len(rows), np.bool_)
    for learned, published in PUBLISHED.items():
        given = np.ascontiguousarray(rows[published]).view(np.uint16)
        follows &= (_derived(rows[learned]).view(np.uint16) == given).all(axis=1)
    short = _short(rows.dtype)
    for at in np.flatnonzero(follows).tolist():
        values[at] = values[at][:short]
    return values


def from_values(values: list[bytes], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The inverse of `to_values`; ValueError if a value is no row of this layout."""
    _check(values, dtype)
    n, short, whole = len(values), _short(dtype), dtype.itemsize
    follows = np.fromiter(map(len, values), np.int64, n) == short
    width = short if follows.all() else whole
    if width == whole:
        values = [value.ljust(whole, b"\0") for value in values]
    rows = np.empty(n, dtype)
    packed = np.frombuffer(b"".join(values), np.uint8).reshape(n, width)
    rows.view(np.uint8).reshape(n, whole)[:, :width] = packed
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
    short, whole = _short(dtype), dtype.itemsize
    if any(value[:1] != _MARK or len(value) not in (short, whole) for value in values):
        value = next(value for value in values if not fits(value, dtype))
        raise ValueError(
            f"a model row of {len(value)} bytes, format {value[:1].hex() or 'none'}, where "
            f"{short} or {whole} bytes of format {FORMAT:02x} are expected"
        )


def fits(value: bytes, dtype: np.dtype[np.void]) -> bool:
    """Whether this is a row of that layout."""
    return len(value) in (_short(dtype), dtype.itemsize) and value[0] == FORMAT


def _short(dtype: np.dtype[np.void]) -> int:
    """How long a row without its published vectors is."""
    return dtype.itemsize - sum(dtype[name].itemsize for name in PUBLISHED.values())


def _derived(learned: NDArray[np.float32]) -> NDArray[np.float16]:
    """The published vectors of items without attributes, and of attributes."""
    return unit_rows(np.ascontiguousarray(learned)).astype("<f2")
