"""Which pairs of items skip-gram reads, and how often."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.learning.corpus import Corpus, keep
from core.rounds import Inputs
from core.settings import CorpusSettings, ModelSettings, SessionSettings, Settings
from tests.unit.learning.made import ints

START_MS = 1_700_000_000_000
Pairs = Counter[tuple[str, str]]


def settings(
    kind: str, session: str = "window", window: int = 3, subsample: float = 0.0
) -> Settings:
    return Settings(
        session=SessionSettings(length=2),
        model=ModelSettings(dim=16, window=window),
        corpus=CorpusSettings(kind, session, subsample),  # type: ignore[arg-type]
    )


def clicked(items: Sequence[str], user: str = "u") -> Clicks:
    n = len(items)
    return Clicks([user] * n, list(items), START_MS + 1000 * np.arange(n), np.ones(n, np.float32))


def pairs_of(chosen: Settings, items: Sequence[str], rounds: int = 1) -> Pairs:
    """The pairs that a session's stars have, in so many rounds, without their order."""
    engine, out = Engine(chosen), Counter[tuple[str, str]]()
    clicks = clicked(items)
    for number, at in enumerate(np.array_split(np.arange(len(items)), rounds), 1):
        folded = engine.intake.fold(clicks.at(at))
        engine.catalogue.give_birth(folded.slots)
        goes_on = folded.added > 0.0
        reach = Corpus.reach(chosen)
        stars = Corpus(chosen).stars(
            folded.history[goes_on, :reach], folded.target[goes_on], number
        )
        for star in stars.tolist():
            names = engine.vocabulary.names(ints([slot for slot in star if slot >= 0]))
            out.update((min(names[0], b), max(names[0], b)) for b in names[1:])
    return out


ITEMS = [f"item {n:02}" for n in range(12)]


@pytest.mark.parametrize("rounds", [1, 2, 5, 12])
def test_word2vec_reads_each_pair_of_a_window_once_in_whatever_rounds(rounds: int) -> None:
    wanted = Counter((ITEMS[i], ITEMS[j]) for i, j in combinations(range(12), 2) if j - i <= 3)
    assert pairs_of(settings("sessions"), ITEMS, rounds) == wanted


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rounds", [1, 4])
def test_item2vec_ignores_the_order_inside_a_session(seed: int, rounds: int) -> None:
    order = np.random.default_rng(seed).permutation(12)
    shuffled = [ITEMS[n] for n in order]
    # The loss is a sum over pairs, so that it is the same for the same pairs.
    assert pairs_of(settings("sessions", "set"), shuffled, rounds) == Counter(
        combinations(ITEMS, 2)
    )


def test_a_shuffled_session_reads_as_many_pairs_as_a_window_by_lot() -> None:
    chosen = settings("sessions", "shuffle")
    some, again = pairs_of(chosen, ITEMS), pairs_of(chosen, ITEMS)
    assert some == again
    assert sum(some.values()) == sum(pairs_of(settings("sessions"), ITEMS).values())
    assert set(some) <= set(combinations(ITEMS, 2))
    other = replace(chosen, model=replace(chosen.model, seed=2))
    assert pairs_of(other, ITEMS) != some
    apart = [ITEMS.index(b) - ITEMS.index(a) for a, b in some]
    assert max(apart) > 3, "further than a window reaches"


@pytest.mark.parametrize("kind", ["walks", "sessions", "both"])
def test_each_kind_of_corpus_learns_from_what_it_names(kind: str) -> None:
    """Two users: the items of one are on no walk from those of the other."""
    engine = Engine(settings(kind))
    learned = []
    engine.learner.learn = lambda walks, *rest: learned.append(len(walks))  # type: ignore[method-assign]
    engine.step(Inputs(clicked(ITEMS)))
    assert (learned[0] > 0) == (kind != "sessions")
    assert Corpus(engine.settings).has_sessions == (kind != "walks")


def test_sessions_alone_bring_items_together_that_were_clicked_together() -> None:
    engine = Engine(settings("sessions", "set"))
    rng = np.random.default_rng(1)
    for number in range(60):
        group = ITEMS[:6] if number % 2 else ITEMS[6:]
        items = [group[n] for n in rng.permutation(6)]
        engine.step(Inputs(clicked(items, f"user {number}")))
    v = engine.model.rows.v[engine.items]
    v = v / np.linalg.norm(v, axis=1)[:, None]
    order = [engine.vocabulary.names(ints([slot]))[0] in ITEMS[:6] for slot in engine.items]
    inside = np.equal.outer(order, order) & ~np.eye(12, dtype=bool)
    assert (v @ v.T)[inside].mean() > (v @ v.T)[~np.equal.outer(order, order)].mean() + 0.3
    assert (engine.model.columns.updates[engine.items] > 0).all()


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02, 0.002, 1e-4, 0.0])
def test_subsampling_keeps_what_word2vecs_formula_keeps(share: float) -> None:
    """`word2vec.c`: (sqrt(count / (t total)) + 1) t total / count."""
    t, total, n = 1e-3, 50_000.0, 40_000
    counts = np.array([share * total, (1 - share) * total], np.float32)
    corpus = Corpus(settings("both", subsample=t))
    walks = np.zeros((n, 2), np.int32)
    left = (corpus.sampled(walks, counts, total, 1, False) >= 0).mean()
    count = share * total
    wanted = min(1.0, (np.sqrt(count / (t * total)) + 1) * t * total / count) if share else 1.0
    assert keep(np.array([share]), t)[0] == pytest.approx(wanted)
    assert left == pytest.approx(wanted, abs=5 * np.sqrt(0.25 / (2 * n)))


def test_what_is_left_of_a_sentence_moves_together_in_its_order() -> None:
    corpus = Corpus(settings("both", subsample=1e-3))
    rng = np.random.default_rng(2)
    sentences = rng.integers(0, 30, (400, 8)).astype(np.int32)
    sentences[::3, 5:] = -1
    counts = np.where(np.arange(30) < 3, 5e4, 1.0).astype(np.float32)
    total = float(counts.sum())
    for are_stars in (False, True):
        left = corpus.sampled(sentences, counts, total, 3, are_stars)
        assert left.shape == sentences.shape
        for before, after in zip(sentences.tolist(), left.tolist(), strict=True):
            kept = [slot for slot in after if slot >= 0]
            assert after == kept + [-1] * (8 - len(kept))
            rare = [slot for slot in before if slot >= 3]
            if are_stars and (not kept or kept[0] != before[0]):
                assert kept == []
            else:
                assert [slot for slot in kept if slot >= 3] == rare
                it = iter(before)
                assert all(slot in it for slot in kept), "in their order"
    assert (left >= 0).mean() < (sentences >= 0).mean()
    off = Corpus(settings("both"))
    assert off.sampled(sentences, counts, total, 3, False) is sentences
