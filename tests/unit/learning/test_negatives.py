from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.graph.graph import Graph
from core.ids.hashing import stream
from core.kernels.lanes import PASS, SOURCES, pointer, pointers
from core.learning.negatives import TRIES, Pool, Pools, draw_block, may_be, pool
from core.learning.skipgram import learn_walks
from core.settings import NegativeSettings
from tests.unit.learning.made import WALKS, ints, random_rows

ITEMS = ints(range(20))
NO_CLUSTERS, NO_BUCKETS = np.full(20, -1, np.int32), np.zeros(20, np.uint64)
CLUSTERS = ints([0] * 6 + [1] * 5 + [2] * 1 + [-1] * 8)


def graph(rows: dict[int, dict[int, float]] | None = None) -> Graph:
    out = Graph(32)
    out.reserve(20)
    for a, row in (rows or {}).items():
        out.put_row(a, ints(list(row)), np.array(list(row.values()), np.float32))
    out.clicked[:20] = np.arange(20)
    return out


@PASS
def _draw(pool, walk, low, high, draws, block, times, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    pool, walk, out = pointers(pool), pointer(walk), pointer(out)
    for n in range(times):
        state = stream(1, 1, 1, n)
        draw_block(state, pool, walk, low, high, draws, out, n * block * draws, block)


def drawn(
    found: Pool, walk: list[int], low: int, high: int, draws: int, times: int = 4000
) -> NDArray[np.int32]:
    """The negatives of so many blocks of four, int32 [times, 4, draws]."""
    out = np.full(times * 4 * draws, -1, np.int32)
    _draw(found, ints(walk), low, high, draws, 4, times, out)
    return out.reshape(times, 4, draws)


def made(
    clusters: NDArray[np.int32] = NO_CLUSTERS, buckets: NDArray[np.uint64] = NO_BUCKETS,
    rows: dict[int, dict[int, float]] | None = None, **chosen: object,
) -> Pool:  # fmt: skip
    settings = NegativeSettings(**chosen)  # type: ignore[arg-type]
    published = buckets.astype(np.int64)
    return Pools(settings).of(
        ITEMS, graph(rows), clusters, buckets, published, np.zeros(20, np.int32), 0
    )


def shares(slots: NDArray[np.int32]) -> NDArray[np.float64]:
    return np.bincount(slots.ravel(), minlength=20) / slots.size


def probabilities(counts: list[float], alpha: float) -> np.ndarray:
    """What the alias table draws, worked out from its cells."""
    items = np.arange(100, 100 + len(counts), dtype=np.int32)
    drawn = pool(items, np.array(counts, np.float32), alpha)
    p = np.zeros(len(items))
    np.add.at(p, drawn.items - 100, drawn.accept)
    np.add.at(p, drawn.alias - 100, 1.0 - drawn.accept)
    return np.asarray(p / len(items))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
def test_items_are_drawn_by_a_power_of_their_counts(alpha: float) -> None:
    counts = [1.0, 3.0, 0.5, 10.0, 7.0, 7.0, 0.1]
    expected = np.array(counts) ** alpha
    assert probabilities(counts, alpha) == pytest.approx(expected / expected.sum(), abs=1e-6)


def test_the_common_scale_of_counts_does_not_matter() -> None:
    counts = np.array([1.0, 3.0, 0.5, 10.0])
    near = probabilities((counts * 2.0**60).tolist(), 0.75)
    assert np.array_equal(near, probabilities((counts * 2.0**-60).tolist(), 0.75))


def test_items_without_any_count_are_still_drawn() -> None:
    assert probabilities([0.0, 0.0], 0.75) == pytest.approx([0.5, 0.5])
    assert 0 < probabilities([0.0, 1.0], 0.75)[0] < 1e-3


# -- kinds ---------------------------------------------------------------------------------------


def test_uniform_negatives_are_any_item_alike() -> None:
    found = drawn(made(kind="uniform"), [0, 1, 2], 0, 3, 1)
    assert shares(found) == pytest.approx(np.full(20, 1 / 20), abs=0.01)


def test_popular_negatives_are_drawn_by_a_power_of_clicks() -> None:
    found = drawn(made(kind="popularity", alpha=0.5), [0, 1, 2], 0, 3, 1)
    clicks = np.maximum(np.arange(20) / 19, 1e-6) ** 0.5
    assert shares(found) == pytest.approx(clicks / clicks.sum(), abs=0.01)


def test_scored_negatives_are_several_draws_each() -> None:
    found = drawn(made(kind="scored", draws=3), [0, 1, 2], 0, 3, 3)
    assert shares(found) == pytest.approx(np.full(20, 1 / 20), abs=0.01)
    assert (found[..., 0] != found[..., 1]).mean() > 0.9
    by_clicks = drawn(made(kind="scored", scored_from="popularity", alpha=1.0), [0], 0, 1, 2)
    assert shares(by_clicks)[10:].sum() > 0.7


@pytest.mark.parametrize("by", ["cluster", "bucket"])
def test_similar_negatives_share_the_group_of_a_context_and_are_others(by: str) -> None:
    buckets = (CLUSTERS + 1).astype(np.uint64)
    found = drawn(made(CLUSTERS, buckets, kind="similar", similar_by=by), [2, 7, 19], 0, 2, 1)
    wanted = np.zeros(20)
    wanted[:6], wanted[6:11] = 0.5 / 5, 0.5 / 4
    wanted[[2, 7]] = 0.0
    assert shares(found) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("by", ["cluster", "bucket"])
@pytest.mark.parametrize("alone", [11, 19])
def test_where_nothing_is_similar_all_items_are(alone: int, by: str) -> None:
    buckets = (CLUSTERS + 1).astype(np.uint64)
    found = drawn(made(CLUSTERS, buckets, kind="similar", similar_by=by), [alone], 0, 1, 1)
    assert shares(found) == pytest.approx(np.full(20, 1 / 20), abs=0.01)


@pytest.mark.parametrize("together", [False, True])
def test_a_cluster_among_many_items_is_drawn_evenly_wherever_its_items_are(together: bool) -> None:
    n, size, draws = 5000, 100, 200_000
    items = np.arange(n, dtype=np.int32)
    members = items[:size] if together else np.random.default_rng(1).choice(items, size, False)
    cluster = np.zeros(n, np.int32)
    cluster[members] = 1
    known = np.zeros(n, np.int64)
    wide = Graph(32)
    wide.reserve(n)
    found = Pools(NegativeSettings("similar")).of(
        items, wide, cluster, known.astype(np.uint64), known, np.zeros(n, np.int32), 0
    )
    got = np.bincount(drawn(found, [int(members[7])], 0, 1, 1, draws // 4).ravel(), minlength=n)
    # Of 256 looked at, one in 50 being of the cluster, none is in .57% of the draws.
    none = (1 - (size - 1) / n) ** TRIES
    assert got.sum() - got[members].sum() == pytest.approx(draws * none, rel=0.15)
    others = got[members[members != members[7]]]
    expected = others.mean()
    chi_square = ((others - expected) ** 2 / expected).sum() / (len(others) - 1)
    assert chi_square < 1.5, "as even as draws are"


def test_a_mix_has_each_kind_by_its_share() -> None:
    chosen: dict[str, Any] = {"uniform": 0.1, "popularity": 0.2, "similar": 0.2, "scored": 0.5}
    assert NegativeSettings("mix", **chosen).shares == chosen
    found = drawn(made(CLUSTERS, kind="mix", alpha=1.0, **chosen), [7], 0, 1, 2, times=20_000)
    one = (found[..., 0] == found[..., 1]).mean()
    assert one == pytest.approx(0.5 + 0.5 / 20, abs=0.01), "scored ones are two draws"
    uniform = np.full(20, 1 / 20)
    similar = np.where(CLUSTERS == 1, 1 / 4, 0.0)
    similar[7] = 0.0
    popular = np.arange(20) / np.arange(20).sum()
    wanted = 0.6 * uniform + 0.2 * similar + 0.2 * popular
    assert shares(found[..., 0]) == pytest.approx(wanted, abs=0.01)


def test_shares_of_a_mix_sum_to_one() -> None:
    assert NegativeSettings("mix", scored=0.6, similar=0.2).shares["scored"] == pytest.approx(0.75)
    assert NegativeSettings("uniform").shares["uniform"] == 1.0


# -- known neighbours ----------------------------------------------------------------------------


@PASS
def _may_be(pool, slot, context, out, sources=SOURCES):  # type: ignore[no-untyped-def]
    pool, out = pointers(pool), pointer(out)
    out[0] = may_be(slot, context, pool)


def test_a_neighbour_may_be_no_negative_where_neighbours_are_spared() -> None:
    near = dict.fromkeys(range(1, 19), 1.0)
    found = made(rows={0: near, 3: {0: 2.0}}, spare_neighbours=True)
    out = np.zeros(1, np.float32)
    for context, spared in ((0, set(near)), (3, {0}), (5, set())):
        for slot in range(20):
            _may_be(found, np.int32(slot), np.int32(context), out)
            assert out[0] == (slot not in spared)


def test_what_learning_spares_is_what_the_graph_knows() -> None:
    rows = {0: {4: 1.0, 5: 1.0}, 1: {4: 1.0, 5: 1.0}, 2: {4: 1.0, 5: 1.0}}
    only = np.array([4, 5], np.int32)

    def learned(
        spares: bool, known: dict[int, dict[int, float]], negatives: int
    ) -> NDArray[np.float32]:
        settings = NegativeSettings("uniform", spare_neighbours=spares)
        found = Pools(settings).of(
            only, graph(known), NO_CLUSTERS, NO_BUCKETS, NO_BUCKETS.astype(np.int64),
            NO_CLUSTERS, 0,
        )  # fmt: skip
        after = random_rows(20)
        chosen = WALKS | {"negatives": negatives, "hardest_of": 1}
        learn_walks(after, ints([[0, 1, 2]]), found, **chosen)
        return after.u

    none = learned(False, {}, 0)
    assert np.array_equal(learned(True, rows, 5), none)
    assert not np.array_equal(learned(False, rows, 5), none)
    # A context that does not know them has them still.
    some = learned(True, {0: rows[0], 1: rows[1]}, 5)
    assert not np.array_equal(some, none)
    assert not np.array_equal(some, learned(False, rows, 5))


SLOTS = st.integers(0, 19)
STEPS = st.one_of(
    st.just(("nothing",)),
    st.tuples(st.just("label"), SLOTS, st.integers(-1, 3)),
    st.tuples(st.just("swap"), SLOTS, SLOTS),
    st.tuples(st.just("items"), st.integers(10, 20)),
    st.just(("grow",)),
)


@given(steps=st.lists(STEPS, min_size=1, max_size=12))
@example([("swap", 1, 2), ("nothing",)])
@example([("swap", 0, 1), ("grow",), ("nothing",)])
def test_buckets_follow_keys_and_items(steps: list[tuple[Any, ...]]) -> None:
    pools = Pools(NegativeSettings("similar", similar_by="bucket"))
    label, many = np.arange(20, dtype=np.int32) % 4 - 1, 20

    def of() -> Pool:
        return pools.of(
            np.arange(many, dtype=np.int32), graph(), NO_CLUSTERS, label.astype(np.uint64),
            label.astype(np.int64) + 1, np.zeros(len(label), np.int32), 0,
        )  # fmt: skip

    before = of()
    for kind, *given_ in steps:
        if kind == "label":
            label[given_[0]] = given_[1]
        elif kind == "swap":
            label[given_] = label[given_[::-1]]
        elif kind == "items":
            many = given_[0]
        elif kind == "grow":  # as tables do
            label = np.concatenate([label, np.full(7, -1, np.int32)])
        found = of()
        if kind == "nothing":
            assert found.group is before.group, "groups are not made anew"
            assert found.begin is before.begin
            assert found.member is before.member
        before = found
        assert len(found.group) >= len(label)
        for slot in range(20):
            there = label[slot] >= 0 and slot < many
            assert (found.group[slot] >= 0) == there
            if there:
                begin, end = found.begin[found.group[slot] : found.group[slot] + 2]
                same = [i for i in range(many) if label[i] == label[slot]]
                assert found.member[begin:end].tolist() == same


def test_keys_of_other_hashes_are_of_no_group() -> None:
    pools = Pools(NegativeSettings("similar", similar_by="bucket"))
    bucket, epoch = np.full(20, 5, np.uint64), ints([3] * 4 + [2] * 4 + [4] * 4 + [0] * 8)
    published = np.ones(20, np.int64)
    published[11] = 0
    for since, there in ((3, [0, 1, 2, 3, 8, 9, 10]), (0, [*range(11), *range(12, 20)])):
        found = pools.of(ITEMS, graph(), NO_CLUSTERS, bucket, published, epoch, since)
        assert np.flatnonzero(found.group >= 0).tolist() == there == found.member.tolist()


def test_no_items_give_an_empty_pool() -> None:
    empty = pool(np.empty(0, np.int32), np.empty(0, np.float32), 1)
    assert empty.n == len(empty.items) == len(empty.accept) == len(empty.alias) == 0
