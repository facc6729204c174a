"""Evidence: what clicks did, packed for the topic `transitions`, and what is no evidence."""

import zlib
from base64 import b64decode
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clicks import Clicks
from core.ids.texts import Texts
from core.rounds import ANY_TIME, Evidence
from streamer.errors import WalkstreamError
from streamer.state import evidence
from tests.unit.state.made import batches

GOLDEN = b64decode(
    "AXgBm3OW5dJZlnOTpvmyTFqSk5pWsubwnqTUoqrDSzJyMtMnTGJgAqJp/owTJi47ujc/LTN1woTJCxMXJi17Nn3p"
    "szlrJi8qNYRKLCo1mszAeISF+S8D82QuIOMvC+MfsAgj4z9GCOM/A9Pk8wwMjN3nn2YwsBwR0GBgYKhoY2SIrvz3"
    "/yyQfUSEgaHBHg3bHQEpA4P/UMAKE0CjAZvBR+k="
)
"""A commit as version 1 packed it. It must be read for ever: logs hold such records."""

ids = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a", "b", ""])
times = st.integers(-(2**40), 2**42) | st.integers(1_700_000_000_000, 1_700_000_000_200)


@st.composite
def rounds(draw: st.DrawFn, number: int = 1) -> Evidence:
    n = draw(st.integers(0, 6))

    def column(of: st.SearchStrategy[Any], kind: type[np.generic]) -> Any:
        return np.array(draw(st.lists(of, min_size=n, max_size=n)), kind)

    weights = st.just(1.0) | st.floats(0, 1e6, width=32)
    items = draw(st.lists(ids, min_size=n, max_size=n))
    clicks = Clicks(
        Texts.of(draw(st.lists(ids, min_size=n, max_size=n))),
        Texts.of(items),
        column(times, np.int64),
        column(weights, np.float32),
        draw(st.none()) or column(st.integers(0, 2**64 - 1), np.uint64),
        column(st.integers(0, 300), np.int32),
        column(st.integers(0, 2**62), np.int64),
    )
    born = draw(st.lists(st.sampled_from(items), unique=True)) if items else []
    left = draw(st.lists(ids, max_size=3))
    forgotten = draw(st.lists(ids, max_size=2))
    return Evidence(
        number,
        dict.fromkeys(left, 3),
        forgotten,
        clicks,
        {name: 7 * at for at, name in enumerate(born)},
        draw(st.none()) or column(st.booleans(), np.bool_),
    )


def plain(one: Evidence) -> Any:
    """All that a record holds of a round, as values that compare."""
    clicks, n = one.clicks, len(one.clicks)

    def column(values: Any) -> list[Any]:
        return [0] * n if values is None else values.tolist()

    return (
        one.round_number, dict(one.gone), list(one.forgotten), dict(one.births),
        list(clicks.users), list(clicks.items), clicks.times.tolist(), clicks.weights.tobytes(),
        column(clicks.event_ids), column(clicks.partitions), column(clicks.offsets),
        column(one.held),
    )  # fmt: skip


@given(st.lists(rounds(), max_size=4), st.integers(0, 2**50), st.integers(0, 2**50))
@settings(max_examples=80, deadline=None)
def test_what_is_packed_comes_back(commit: list[Evidence], number: int, before: int) -> None:
    packed = list(evidence.pack(number, before, commit))
    assert bool(packed) == any(commit)
    found = [evidence.unpack(record) for record in packed]
    assert [(n, b) for n, b, _ in found] == [(number, before)][: len(packed)]
    got = [plain(one) for _, _, part in found for one in part]
    assert got == [plain(one) for one in commit if one]
    clicks = [sum(len(one.clicks) for one in part) for _, _, part in found]
    headings = [evidence.heading(record) for record in packed]
    assert [(one.commit, one.clicks) for one in headings] == [(number, n) for n in clicks]


def test_a_long_commit_has_several_records_each_of_which_names_the_one_before() -> None:
    (clicks,) = batches(1, size=3000)
    nothing = Evidence(2, {}, [], Clicks.empty(), {})
    gone = [Evidence(6, {f"i{n}": n for n in range(50_000)}, [], Clicks.empty(), {}),
            Evidence(7, {f"j{n}": n for n in range(50_000)}, [], Clicks.empty(), {})]  # fmt: skip
    commit = [Evidence(n, {}, [], clicks, {}) for n in (1, 3, 4, 5)]
    packed = list(evidence.pack(9, 4, [commit[0], nothing, *commit[1:], *gone]))
    found = [evidence.unpack(record) for record in packed]
    # 8,000 clicks, or ids of 400 kB, of a record at most; a round that fits into one is never cut.
    assert [[one.round_number for one in part] for _, _, part in found] == [
        [1, 3],
        [4, 5, 6],
        [7],
    ]
    assert [(n, before) for n, before, _ in found] == [(9, 4), (9, 9), (9, 9)]
    assert max(map(len, packed)) < 400_000


@pytest.mark.parametrize("shares", ["none", "users"])
def test_no_record_is_too_long_whatever_the_ids_are(shares: str) -> None:
    """Brokers and clients refuse one of 1 MB, and no restart would make it shorter."""
    rng = np.random.default_rng(1)

    def texts(n: int, size: int) -> list[str]:
        return [rng.bytes(size // 2).hex() for _ in range(n)]

    n, size = 2000, 512
    users = texts(n, size) if shares == "none" else texts(1, size) * n
    long = Clicks(
        Texts.of(users), Texts.of(texts(n, size)), rng.integers(0, 2**40, n),
        rng.random(n).astype(np.float32), rng.integers(1, 2**63, n).astype(np.uint64),
        rng.integers(0, 99, n).astype(np.int32), rng.integers(0, 2**62, n),
    )  # fmt: skip
    born = {item: rank for rank, item in enumerate(long.items)}
    commit = [
        Evidence(1, dict.fromkeys(texts(1700, size), 1), texts(900, size), long, born),
        Evidence(2, dict.fromkeys(texts(1700, size), 1), [], Clicks.empty(), {}),
    ]
    packed = list(evidence.pack(9, 4, commit))
    assert max(map(len, packed)) < 900_000
    found = [evidence.unpack(record) for record in packed]
    assert [before for _, before, _ in found] == [4] + [9] * (len(packed) - 1)
    parts = [one for _, _, part in found for one in part]
    assert [one.round_number for one in parts] == sorted(one.round_number for one in parts)
    for name in ("gone", "forgotten"):
        told = [text for one in parts for text in getattr(one, name)]
        assert told == [text for one in commit for text in getattr(one, name)]
    assert {k: v for one in parts for k, v in one.births.items()} == born
    clicks = Clicks.joined([one.clicks for one in parts])
    whole = Evidence(1, {}, [], clicks, {})
    assert plain(whole) == plain(Evidence(1, {}, [], long, {}))


def test_a_click_takes_a_few_bytes() -> None:
    (clicks,) = batches(1, size=4000)
    n = len(clicks)
    where = replace(clicks, partitions=np.zeros(n, np.int32), offsets=np.arange(n))
    packed = list(evidence.pack(1, 0, [Evidence(1, {}, [], where, {})]))
    assert sum(map(len, packed)) < 20 * n


def test_an_item_is_born_with_the_part_that_has_its_first_click_that_counts() -> None:
    n = 2 * evidence.CLICKS
    (clicks,) = batches(1, size=n)
    clicks = replace(clicks, items=["new", *clicks.items[1:-1], "new"])
    held = np.arange(n) == 0
    first, second = (
        one
        for record in evidence.pack(1, 0, [Evidence(1, {}, (), clicks, {"new": 5}, held)])
        for one in evidence.unpack(record).rounds
    )
    assert (first.births, second.births) == ({}, {"new": 5})
    assert first.held is not None
    assert np.flatnonzero(first.held).tolist() == [0]
    assert second.held is None or not second.held.any()


def test_what_version_1_packed_is_read() -> None:
    commit, before, (first, second) = evidence.unpack(GOLDEN)
    assert (commit, before) == (1234, 1230)
    begin = 1_700_000_000_000
    assert plain(first) == (
        77, dict.fromkeys(["left", "überzählig"], ANY_TIME), [], {"a": 0, "日本": 2},
        ["u1", "Žofie", "u1", "u1"], ["a", "b", "日本", "a"],
        [begin, begin + 40, begin + 100_000, begin - 5], np.array([1, 1, 1, 1], "<f4").tobytes(),
        [0, 2**64 - 1, 5, 0], [0, 3, 0, 0], [10, 7, 11, 12], [0, 0, 0, 0],
    )  # fmt: skip
    assert plain(second) == (
        79, {}, ["Žofie"], {}, ["u2"], ["b"], [begin + 200], np.array([0.25], "<f4").tobytes(),
        [0], [3], [8], [0],
    )  # fmt: skip


def records_that_are_none() -> dict[str, bytes]:
    packed = next(evidence.pack(1, 0, [Evidence(1, {"left": 1}, [], Clicks.empty(), {})]))
    fields = msgspec.msgpack.decode(zlib.decompress(packed[1:]))
    short = [*fields]
    short[2] = [[1, 5, [], [], [], []]]  # five clicks, and no columns
    born = [*fields]
    born[2] = [[1, 0, ["left"], [], [3], [0]]]  # a birth that is no item

    def made(value: object) -> bytes:
        return bytes([evidence.VERSION]) + zlib.compress(msgspec.msgpack.encode(value))

    return {
        "cut short": packed[:-4],
        "not compressed": bytes([evidence.VERSION]) + b"hello",
        "other fields": made(["x", *fields[1:]]),
        "fewer fields": made(fields[:4]),
        "no columns": made(short),
        "a birth of nothing": made(born),
    }


@pytest.mark.parametrize("name", records_that_are_none())
def test_bytes_that_are_no_evidence_are_refused(name: str) -> None:
    with pytest.raises(WalkstreamError, match="no evidence, but"):
        evidence.unpack(records_that_are_none()[name])


@pytest.mark.parametrize(("value", "told"), [(b"\x03abc", "version 03"), (b"", "version none")])
def test_another_version_is_told_apart_from_garbage(value: bytes, told: str) -> None:
    with pytest.raises(WalkstreamError, match=f"evidence of {told}, where 01 is expected"):
        evidence.unpack(value)


def test_a_record_with_impressions_is_of_a_version_that_who_knows_of_none_refuses() -> None:
    some = Clicks(["u", "v"], ["a", "a"], np.array([1, 2]), np.array([1.0, -1.0], np.float32))
    packed = list(evidence.pack(1, 0, [Evidence(1, {}, (), some, {})]))
    assert packed[0][:1] == bytes([evidence.WITH_IMPRESSIONS])
    (read,) = evidence.unpack(packed[0]).rounds
    assert read.clicks.weights.tolist() == [1.0, -1.0]
    (plain_one,) = evidence.pack(1, 0, [Evidence(1, {}, (), some.without_impressions, {})])
    assert plain_one[:1] == bytes([evidence.VERSION])
