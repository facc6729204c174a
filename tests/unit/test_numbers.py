import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.numbers import Numbers

TEXTS = ["", "a", "b", "ab", "é", "\udcc3\udca9", "\udcffattr/a=b", "日本", "x" * 600]
TEXTS += [f"item-{n}" for n in range(40)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(TEXTS), max_size=60))))
def test_each_text_has_one_number_until_it_is_forgotten(
    steps: list[tuple[bool, list[str]]],
) -> None:
    numbers, model = Numbers(), dict[str, int]()
    for forgets, texts in steps:
        if forgets:
            gone = [model.pop(text) for text in dict.fromkeys(texts) if text in model]
            assert [numbers.names[n] for n in gone] == numbers.forget([*gone, *gone])
        else:
            for text, number in zip(texts, numbers.of(texts).tolist(), strict=True):
                assert model.setdefault(text, number) == number
        assert numbers == model
        assert {n: text for n, text in enumerate(numbers.names) if text is not None} == {
            number: text for text, number in model.items()
        }
        assert numbers.held.tolist() == [name is not None for name in numbers.names]


def test_new_texts_take_free_numbers_from_the_end_and_then_the_next() -> None:
    numbers = Numbers()
    assert numbers.of(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]
    numbers.forget([0, 1])
    numbers.free.extend([0, 1])
    assert numbers.of(["d", "c", "e", "f", "d"]).tolist() == [1, 2, 0, 3, 1]
    assert numbers.names == ["e", "d", "c", "f"]


def test_numbers_can_be_given_anew() -> None:
    numbers = Numbers()
    numbers.of(["a", "b", "c"])
    numbers.replace(["c", None, "a"])
    assert numbers == {"c": 0, "a": 2}
    assert numbers.of(["a", "b", "c"]).tolist() == [2, 3, 0]


def test_what_is_left_is_found_however_many_were_forgotten() -> None:
    numbers = Numbers()
    many = [f"{n}" for n in range(20_000)]
    assert np.array_equal(numbers.of(many), np.arange(20_000))
    numbers.forget(range(1, 20_000, 2))
    assert np.array_equal(numbers.of(many[::2]), np.arange(0, 20_000, 2))
    assert np.array_equal(numbers.of(many[1::2]), np.arange(20_000, 30_000))
