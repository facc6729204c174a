"""The layout of a model row: all of an item that cannot be derived from the evidence alone.

It is the value of `model-state` and of the `rows` column family, packed and little-endian, the same
on every worker, so that a row that one worker wrote is applied by another without translation.
"""

import numpy as np
from numpy.typing import NDArray

FORMAT = 3
"""Number of this layout, the first byte of each row."""


def row_dtype(dim: int, attribute_slots: int, tables: int) -> np.dtype[np.void]:
    """The packed row of a vector space with these sizes (`space` header)."""
    return np.dtype(
        [
            ("format", "u1"),
            ("version", "<i8"),  # strictly increasing for an item; a row applies only if newer
            ("born_round", "<i8"),  # birth: the order of slots
            ("born_rank", "<i4"),
            ("updates", "<i8"),  # times the item was a centre
            ("written", "<i8"),  # the engine's clock when the row was written, ms
            ("last_seen", "<i8"),  # decay time of its last click by then, ms
            ("described", "<u8"),  # hash of the attributes that it had, 0 for none
            ("acc_v", "<f4"),  # Adagrad's accumulators
            ("acc_u", "<f4"),
            ("epoch", "<i4"),  # placement that `cluster` was judged by
            ("cluster", "<i4"),
            ("published", "<i8"),  # version of the last published vector, 0 if none
            ("norms", "<f4", (2,)),  # lengths of hidden and context vector as last published
            ("buckets", "<u8", (tables,)),
            ("mix", "<f4", (1 + attribute_slots,)),  # attribute weights before softmax
            ("v", "<f4", (dim,)),
            ("u", "<f4", (dim,)),
            ("pub_v", "<f2", (dim,)),  # unit rows as last published: drift is measured against them
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
    """Each row as its bytes."""
    values: list[bytes] = rows.view(f"V{rows.dtype.itemsize}").tolist()
    return values


def from_values(values: list[bytes], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """The inverse of `to_values`; ValueError if a value is no row of this layout."""
    for value in values:
        if len(value) != dtype.itemsize or value[0] != FORMAT:
            raise ValueError(
                f"a model row of {len(value)} bytes, format {value[:1].hex() or 'none'}, where "
                f"{dtype.itemsize} bytes of format {FORMAT:02x} are expected"
            )
    return np.frombuffer(b"".join(values), dtype)
