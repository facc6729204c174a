import numpy as np
import pytest

from core.model import Model
from core.placing.clusters import unit_rows
from core.rows import FORMAT, PUBLISHED, from_values, row_dtype, to_values
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
