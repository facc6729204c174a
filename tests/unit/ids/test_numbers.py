import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ids.numbers import Numbers

TEXTS = ["", "a", "b", "ab", "é", "\udcc3\udca9", "\udcffattr/a=b", "日本", "x" * 600]
TEXTS += [f"item-{n}" for n in range(40)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["of", "forget", "reuse", "cut", "replace"]),
            st.lists(st.sampled_from(TEXTS), max_size=60),
        )
    )
)
def test_it_is_a_dict_with_names_whatever_is_done_to_it(steps: list[tuple[str, list[str]]]) -> None:
    numbers, names, free = Numbers(), list[str | None](), list[int]()
    for act, texts in steps:
        if act == "of":
            known = {name: n for n, name in enumerate(names) if name is not None}
            for text in texts:
                if text not in known:
                    n = known[text] = free.pop() if free else len(names)
                    names[n : n + 1] = [text]
            assert numbers.of(texts).tolist() == [known[text] for text in texts]
        elif act in ("forget", "reuse"):
            gone = [names.index(text) for text in dict.fromkeys(texts) if text in names]
            told = [names[n] for n in gone]
            assert numbers.forget([*gone, *gone], reuse=act == "reuse") == told
            for n in gone:
                names[n] = None
            free += gone if act == "reuse" else []
        elif act == "cut":
            n = min(len(texts), len(names))
            numbers.cut(n)
            del names[n:]
            free = [number for number in free if number < n]
        else:
            names = [text or None for text in dict.fromkeys(texts)]
            numbers.replace(names)
            free = []
        assert numbers.names == names
        assert numbers == {name: n for n, name in enumerate(names) if name is not None}
        assert numbers.held.tolist() == [name is not None for name in names]


def test_new_texts_take_free_numbers_from_the_end_and_then_the_next() -> None:
    numbers = Numbers()
    assert numbers.of(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]
    numbers.forget([0, 1], reuse=True)
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
