import numpy as np

from core.ids.vocabulary import Vocabulary, attribute_key, decode, encode, is_attribute


def test_slots_follow_the_order_of_first_sight() -> None:
    words = Vocabulary()
    assert words.intern(["a", "b", "a", "c"]).tolist() == [0, 1, 0, 2]
    assert words.intern(["d", "b"]).tolist() == [3, 1]


def test_an_id_that_comes_back_gets_a_new_slot() -> None:
    words = Vocabulary()
    words.intern(["a", "b"])
    words.forget([0])
    assert words.get("a") is None
    assert (words.known, len(words)) == (1, 2)
    assert words.intern(["b", "a"]).tolist() == [1, 2]


def test_a_cut_takes_back_the_newest_slots() -> None:
    words = Vocabulary()
    words.intern(["a", "b", "c", "d"])
    words.forget([2])
    words.cut(1)
    assert (words.known, words.keys) == (1, ["a"])
    assert words.intern(["d", "a", "b"]).tolist() == [1, 0, 2]


def test_slots_have_the_names_they_were_given_and_empty_ones_have_none() -> None:
    words = Vocabulary()
    slots = words.intern(["a", "b", "c"])
    words.forget([1])
    assert words.names(slots[::-1]) == ["c", "", "a"]


def test_reordering_keeps_the_ids_of_the_slots_it_keeps() -> None:
    words = Vocabulary()
    words.intern(["a", "b", "c"])
    words.forget([1])
    words.reorder(np.array([2, 0]))
    assert [words.get(key) for key in "abc"] == [1, None, 0]
    assert words.keys == ["c", "a"]


def test_attribute_keys_are_never_ids_and_survive_the_trip_through_bytes() -> None:
    key = attribute_key("category=gärten")
    assert is_attribute(key)
    assert not is_attribute("attr/category=gärten")
    assert encode(key).startswith(b"\xffattr/category=g")
    assert decode(encode(key)) == key
    assert decode(encode("日本")) == "日本"
