from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from core.model import Model
from core.placing.clusters import unit_rows
from core.rows import (
    FORMAT,
    NARROW,
    PUBLISHED,
    dims_of,
    fits,
    from_values,
    heads,
    is_packed,
    marks_of,
    row_dtype,
    to_values,
    version_of,
)
from core.settings import LshSettings, ModelSettings, Settings

SIZES = (16, 2, 3)


def random_rows(n: int) -> np.ndarray:
    dtype = row_dtype(*SIZES)
    rows = np.frombuffer(np.random.default_rng(1).bytes(n * dtype.itemsize), dtype).copy()
    rows["format"] = FORMAT
    for learned in PUBLISHED:
        rows[learned] = np.random.default_rng(3).normal(size=(n, SIZES[0]))
    return rows


def test_values_give_the_same_rows_back_bit_for_bit() -> None:
    rows = random_rows(20)
    values = to_values(rows)
    assert [value[0] for value in values] == [FORMAT] * 20
    assert from_values(values, rows.dtype).tobytes() == rows.tobytes()
    assert len(from_values([], rows.dtype)) == 0


def test_published_vectors_are_left_out_where_they_follow_from_the_learned_ones() -> None:
    """As those of some that leave do; one with attributes was published with another vector."""
    rows = random_rows(300)
    for learned, published in PUBLISHED.items():
        rows[learned][7] = 0
        rows[published] = unit_rows(rows[learned])
    rows["pub_u"][5, 3] *= -1
    values = to_values(rows)
    lengths = [len(value) for value in values]
    assert lengths[5] == rows.dtype.itemsize
    assert {*lengths[:5], *lengths[6:]} == {rows.dtype.itemsize - 2 * 2 * 16}
    for part in (slice(None), slice(5, 6), slice(6, 9)):  # a row is the same in any company
        assert from_values(values[part], rows.dtype).tobytes() == rows[part].tobytes()


def test_a_model_packs_what_it_unpacked_bit_for_bit() -> None:
    model = Model(
        Settings(model=ModelSettings(dim=16, attribute_slots=2), lsh=LshSettings(tables=3))
    )
    rows = random_rows(5)
    rows["last_seen"], rows["landmark"] = 8000, 0
    rows["half_life"] = model.settings.accumulator_half_life
    model.reserve(9)
    model.age(8000)
    slots = np.array([4, 0, 8, 2, 5], np.int32)
    model.unpack(slots, rows)
    assert model.pack(slots, np.full(9, 8000)).tobytes() == rows.tobytes()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda v: v[:-1], "bytes, format 05, where"),
        (lambda v: v + b"\0", "bytes, format 05, where"),
        (lambda v: b"\x06" + v[1:], "format 06, where"),
        (lambda v: b"", "0 bytes, format none, where"),
    ],
)
def test_a_value_of_another_layout_is_refused(damage: object, complaint: str) -> None:
    rows = random_rows(2)
    values = to_values(rows)
    with pytest.raises(ValueError, match=complaint):
        from_values([values[0], damage(values[1])], rows.dtype)  # type: ignore[operator]


WIDE = 64, 1, 3
kinds = st.lists(st.tuples(st.sampled_from([0, 16, 32, 48]), st.booleans()), max_size=12)


def mixed_rows(given: list[tuple[int, bool]]) -> np.ndarray:
    """Rows of so many dims, 0 for all, whose published vectors follow from the learned ones, or do
    not, as those of items that have attributes: these have all dims."""
    dtype, n = row_dtype(*WIDE), len(given)
    dims = np.array([dim for dim, _ in given], np.int16)
    rng = np.random.default_rng([3, *dims.tolist()])
    rows = np.frombuffer(rng.bytes(n * dtype.itemsize), dtype).copy()
    rows["format"] = marks_of(dims)
    for learned, published in PUBLISHED.items():
        rows[learned] = rng.normal(size=(n, WIDE[0]))
        for row, (dim, follows) in zip(rows, given, strict=True):
            row[learned][dim or WIDE[0] :] = 0
            if follows:
                row[published] = unit_rows(row[learned][None])[0]
    return rows


@given(kinds)
@effort(max_examples=60, deadline=None)
def test_rows_of_any_dims_come_back_bit_for_bit_in_any_company(
    given: list[tuple[int, bool]],
) -> None:
    rows = mixed_rows(given)
    values = to_values(rows)
    found = from_values(values, rows.dtype)
    assert found.tobytes() == rows.tobytes()
    assert dims_of(found["format"]).tolist() == [dim for dim, _ in given]
    begins = heads(values, rows.dtype)
    for name in begins.dtype.names or ():
        assert begins[name].tobytes() == rows[name].tobytes()
    for value, row, (dim, follows) in zip(values, rows, given, strict=True):
        left_out = 2 * 4 * (WIDE[0] - dim if dim else 0) + (2 * 2 * WIDE[0] if follows else 0)
        assert len(value) == rows.dtype.itemsize - left_out
        assert to_values(np.array([row]))[0] == value
        assert fits(value, rows.dtype)
        assert is_packed(value)
        assert version_of(value) == row["version"]


def test_a_row_of_all_dims_is_the_same_bytes_whether_or_not_others_are_narrow() -> None:
    """So that what an app without tiers has written is read by any."""
    whole = mixed_rows([(0, True), (0, False)])
    values = to_values(whole)
    assert [value[0] for value in values] == [FORMAT] * 2
    assert values[1] == whole[1:].tobytes()
    assert to_values(np.concatenate([mixed_rows([(16, True)]), whole]))[1:] == values


def test_first_byte_and_length_tell_all_kinds_of_rows_apart() -> None:
    """Two kinds may be of one length: 64 dims alone, and 32 with what was published of 64."""
    kinds = [*product([0, 16, 32, 48], [True, False])]
    values = to_values(mixed_rows(kinds))
    assert len({len(value) for value in values}) < len({(v[0], len(v)) for v in values}) == 8
    for value, (dim, _) in zip(values, kinds, strict=True):
        for mark in (FORMAT, NARROW + 1, NARROW + 2, NARROW + 3):
            other = bytes([mark]) + value[1:]
            known = {len(v) for v in values if v[0] == mark}
            assert fits(other, row_dtype(*WIDE)) == (len(value) in known)
        for mark in (0, 1, FORMAT - 1, FORMAT + 1, NARROW, NARROW + 4, 0xFF):
            assert not fits(bytes([mark]) + value[1:], row_dtype(*WIDE)), (mark, dim)
    assert not is_packed(bytes([NARROW]) + values[0][1:])
    assert not fits(b"", row_dtype(*WIDE))


def test_a_narrow_row_of_another_length_is_refused() -> None:
    values = to_values(mixed_rows([(16, True), (0, True)]))
    with pytest.raises(ValueError, match=r"format 81, where \d+ or \d+ bytes of format 81 are"):
        from_values([values[1], values[0] + b"\0"], row_dtype(*WIDE))
