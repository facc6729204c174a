from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.placing.clusters import NONE
from core.placing.matching import best_pairs, labels_of


@given(n=st.integers(0, 6), data=st.data())
def test_no_other_assignment_gains_more(n: int, data: st.DataObject) -> None:
    gain = data.draw(arrays(np.int64, (n, n), elements=st.integers(-5, 20)))
    found = best_pairs(gain)
    assert sorted(found.tolist()) == list(range(n))
    best = max(
        sum(gain[row, column] for row, column in enumerate(p)) for p in permutations(range(n))
    )
    assert gain[np.arange(n), found].sum() == best


@given(seed=st.integers(0, 1000), n=st.integers(1, 60))
def test_a_permuted_clustering_gets_its_labels_back(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    new = np.concatenate([np.arange(n), rng.integers(n, size=5 * n)]).astype(np.int32)
    order = rng.permutation(n)
    assert labels_of(order.astype(np.int32)[new], new, n).tolist() == order.tolist()


def test_most_items_keep_their_label_and_what_had_none_says_nothing() -> None:
    # 7 of old 0 are with 6 of old 1 in new 0, and 1 of each is alone: 7 + 1 is better than 6 + 1.
    old = np.array([0] * 7 + [1] * 6 + [1, 0, 0], np.int32)
    new = np.array([0] * 13 + [1, 1, 1], np.int32)
    assert labels_of(old, new, 2).tolist() == [0, 1]
    # Were it not for those without a label, or past the end, it would be the other way round.
    old = np.concatenate([old, np.full(50, NONE, np.int32), np.full(50, 2, np.int32)])
    new = np.concatenate([new, np.ones(100, np.int32)])
    assert labels_of(old, new, 2).tolist() == [0, 1]


def test_1500_clusters_get_their_labels_back_though_a_third_of_the_items_moved() -> None:
    rng = np.random.default_rng(1)
    n = 1500
    old = rng.integers(n, size=30 * n).astype(np.int32)
    order = rng.permutation(n)
    # A third of the items moved anywhere.
    new = np.where(rng.random(len(old)) < 0.33, rng.integers(n, size=len(old)), order[old])
    found = labels_of(old, new.astype(np.int32), n)
    assert (found[order] == np.arange(n)).all()
