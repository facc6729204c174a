from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.bench.planted import MEMBERS, Planted, plant

pytest.importorskip("gensim")

from streamer.bench.skipgram import Trainer, quality


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant(4 * MEMBERS)


def test_vectors_that_know_the_communities_are_pure_and_find_links(planted: Planted) -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(4 * MEMBERS, 16)).astype(np.float32)
    known = noise * np.float32(0.1) + np.eye(16, dtype=np.float32)[planted.community]
    assert planted.purity(known) == 1.0
    # An edge and a pair of which one is inside a community are told apart, the others by chance.
    edge, pair = np.equal(*planted.community[planted.held.T]).mean(), 1 / 4
    area = edge * (1 - pair) + (edge * pair + (1 - edge) * (1 - pair)) / 2
    assert planted.links(known) == pytest.approx(area, abs=0.03)
    assert planted.purity(noise) == pytest.approx(0.25, abs=0.05)
    assert planted.links(noise) == pytest.approx(0.5, abs=0.05)


def test_held_out_edges_are_not_in_the_graph_that_is_walked(planted: Planted) -> None:
    for a, b in planted.held:
        assert b not in planted.graph.row(a)[0]
        assert a not in planted.graph.row(b)[0]


def test_quality_is_told_after_each_number_of_epochs(planted: Planted) -> None:
    trainer = Trainer(4 * MEMBERS, dim=16, rate=0.05)

    def trained() -> Iterator[NDArray[np.float32]]:
        yield trainer.rows().v[: trainer.n]
        *_, last = trainer.epochs(planted.walks(2, 20))
        yield last

    before, after = quality(planted, trained()).split("; ")
    assert before.startswith("2 epochs: purity 0.2")
    assert after.startswith("5 epochs: purity 0.8")
