import numpy as np
import pytest

from core.engine import Engine
from core.placing.clusters import unit_rows
from streamer.evaluate import peers
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Model
from tests.unit.evaluate.ring import (
    SETTINGS,
    Learned,
    visits,
    weights,
)


def test_a_peer_trains_at_every_tenth_and_knows_nothing_newer() -> None:
    learned, trained = Learned(), list[int]()

    def train(engine: Engine, past: Past) -> peers.Vectors:
        trained.append(past.clicks)
        numbers = past.vocabulary.intern(engine.vocabulary.names(engine.items))
        v, u = engine.model.rows.v[engine.items], engine.model.rows.u[engine.items]
        return peers.Vectors(numbers, unit_rows(v), unit_rows(u))

    peer = peers.Retrained("twin", ("similar", "next"), train)
    asked = learned.ask(visits(7, at=2500))
    assert (peer(asked)["twin, next"] == asked.last).all()
    for share in (0.05, 0.11, 0.15, 0.31, 0.39, 1.0):
        peer.follow(share, learned.engine, learned.past)
    assert len(trained) == 2
    own = Model(("similar", "next"))(asked)
    for kind in ("similar", "next"):
        assert np.abs(peer(asked)[f"twin, {kind}"] - own[kind]).max() <= 1
    learned.past.learn()
    learned.round([("n", "i1", 2600), ("n", "brand new", 2610), ("n", "i2", 2620)])
    asked = learned.ask([("m", "i1", 2700), ("m", "brand new", 2701), ("m", "i2", 2702)])
    assert (peer(asked)["twin, similar"] == asked.last).all()


def test_the_graph_of_deepwalk_has_every_transition_both_ways() -> None:
    past = Learned().past
    graph = peers.undirected(past)
    total = sum(len(target) for _, target in past.transitions)
    assert sum(graph.row(n)[1].sum() for n in range(len(past.vocabulary))) == 2 * total
    after = [weights(past.after, a) for a in range(len(past.vocabulary))]
    for a in range(len(past.vocabulary)):
        for b, n in zip(*(x.tolist() for x in graph.row(a)), strict=True):
            assert n == after[a].get(b, 0) + after[b].get(a, 0)


@pytest.mark.parametrize("name", ["gensim", "batch"])
def test_what_is_trained_anew_finds_the_next_item(name: peers.Peer) -> None:
    if name == "gensim":
        pytest.importorskip("gensim")
    learned = Learned(rounds=12)
    found = peers.of(name, SETTINGS)
    for peer in found:
        peer.follow(0.5, learned.engine, learned.past)
    asked = learned.ask(visits(20, at=4800))
    for peer in found:
        for ranker, ranks in peer(asked).items():
            # By chance .2; item2vec has few sessions here.
            assert (ranks < 10).mean() > (0.3 if "item2vec" in ranker else 0.6), ranker
