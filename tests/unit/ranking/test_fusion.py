from typing import Any

import numpy as np
import pytest

from core.ranking import fusion
from core.ranking.experts import COUNTED, EXPERTS, HEAT, Table
from core.ranking.fusion import FEATURES, HEADS, USED, Fusion
from core.rounds import Inputs
from tests.unit.ranking.logs import clicks, learned, log_of, settings


def table(seed: int, q: int, n: int = 30) -> Table:
    """Random shares of n candidates of each of q questions; one expert has nothing to say."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(n, 0.3), (len(EXPERTS), q)).astype(np.float32)
    share[EXPERTS.index("two arcs")] = 0.0
    share = share.reshape(len(EXPERTS), q * n)
    own = [EXPERTS.index(name) for name in (*COUNTED, *HEAT)]
    return Table(
        np.arange(q + 1) * n, np.tile(np.arange(n, dtype=np.int32), q),
        np.ones(q * n, np.float32), share, np.sqrt(share[own]),
        rng.normal(size=(2, q * n)).astype(np.float32),
    )  # fmt: skip


def plain_scores(found: Table, q: int, model: Fusion, head: int) -> Any:
    """Scores of the candidates of question q, and the mixture, as they are defined."""
    at = slice(found.begin[q], found.begin[q + 1])
    share, pi = found.share[:, at].astype(float), model.shares[head]
    there = share.sum(axis=1) > 0
    mixture = (pi * there / (pi * there).sum()) @ share
    features = np.stack([np.log(mixture + 1e-9), *found.root[:, at], *found.score[:, at]])
    return model.weights[head] @ (features * USED[head][:, None]), mixture, features


@pytest.mark.parametrize("head", range(2))
def test_scores_are_the_log_of_the_mixture_and_weighted_features(head: int) -> None:
    model, found = Fusion.new(), table(1, 3)
    rng = np.random.default_rng(2)
    model.weights[:] = rng.normal(size=model.weights.shape) * USED
    got = model.scores(found, HEADS[head])
    for q in range(3):
        wanted, _, _ = plain_scores(found, q, model, head)
        assert got[q * 30 : (q + 1) * 30] == pytest.approx(wanted, abs=1e-3)


def test_ranks_count_what_comes_before_and_tell_what_is_no_candidate() -> None:
    model, found = Fusion.new(), table(3, 4)
    target = np.array([5, -1, 99, 0], np.int32)
    ranks = model.ranks(found, target, learns=False)
    assert model.trials == 0
    assert ranks[:, 1:3].tolist() == [[-1, -1], [-1, -1]]
    for head in range(2):
        for q in (0, 3):
            score, _, _ = plain_scores(found, q, model, head)
            assert ranks[head, q] == (score > score[target[q]]).sum()


def test_a_step_goes_along_the_gradient_of_the_targets_log_share() -> None:
    for head in range(2):
        model, found = Fusion.new(), table(4, 1)
        before = model.weights[head].copy()
        squares = model.squares[head].copy()
        score, _, features = plain_scores(found, 0, model, head)
        p = np.exp(score - score.max())
        p /= p.sum()
        gradient = (features[:, 7] - features @ p) * USED[head]
        model.ranks(found, np.array([7], np.int32), learns=True)
        squares += fusion.FORGETS * (gradient**2 - squares)
        wanted = fusion.RATE * gradient / np.sqrt(squares + 1e-4)
        assert model.weights[head] - before == pytest.approx(wanted, abs=1e-4)
        assert (model.weights[head][~USED[head]] == before[~USED[head]]).all()
        assert model.trials == 1


def test_parts_of_the_mixture_move_to_what_each_expert_accounts_for() -> None:
    model, found = Fusion.new(), table(5, 1)
    before = model.shares[1].copy()
    _, mixture, _ = plain_scores(found, 0, model, 1)
    model.ranks(found, np.array([3], np.int32), learns=True)
    says = found.share.sum(axis=1) > 0
    there = before[says].sum()
    wanted = before.copy()
    account = before[says] * found.share[says, 3] / mixture[3]
    wanted[says] += fusion.FORGETS * (account - before[says])
    wanted = np.maximum(wanted, 1e-6)
    assert there < 1.0
    assert model.shares[1] == pytest.approx(wanted / wanted.sum(), rel=1e-3)


def test_the_expert_that_is_right_is_followed_and_another_one_after_a_change() -> None:
    model, found = Fusion.new(), table(6, 4000)
    rng = np.random.default_rng(7)
    for expert in ("after", "session arcs"):
        row = found.share[EXPERTS.index(expert)].reshape(4000, 30).astype(float)
        target = np.array([rng.choice(30, p=p / p.sum()) for p in row], np.int32)
        ranks = model.ranks(found, target, learns=True)
        assert model.shares[1].argmax() == EXPERTS.index(expert)
        late = ranks[1, 3000:]
        best = (row[3000:] > row[np.arange(3000, 4000), target[3000:], None]).sum(axis=1)
        assert late.mean() < 1.2 * best.mean() + 0.3


def test_steps_are_longer_while_what_comes_next_is_harder_to_tell_than_usually() -> None:
    model, found = Fusion.new(), table(8, 600)
    row = found.share[EXPERTS.index("after")].reshape(600, 30)
    expected = row.argmax(axis=1).astype(np.int32)
    model.losses[:], model.trials = 8.0, 2000
    model.ranks(found, expected, learns=True)
    assert not model.eager
    lately, usually = model.losses[1]
    assert lately < usually
    strange = row.argmin(axis=1).astype(np.int32)[:40]
    moved = []
    for q in range(40):
        at = slice(q * 30, (q + 1) * 30)
        one = Table(
            np.array([0, 30]), found.slot[at], found.stands_for[at],
            *(column[:, at].copy() for column in (found.share, found.root, found.score)),
        )  # fmt: skip
        before, squares = model.weights[1].copy(), model.squares[1].copy()
        losses = model.losses[1].copy()
        score, _, features = plain_scores(one, 0, model, 1)
        p = np.exp(score - score.max())
        p /= p.sum()
        loss = min(-np.log(p[strange[q]]), fusion.LOST)
        lately = losses[0] + (loss - losses[0]) * fusion.LATELY
        sooner = min(1 + fusion.SOONER * max(lately - losses[1] - fusion.MARGIN, 0.0), 10.0)
        gradient = features[:, strange[q]] - features @ p
        squares += fusion.FORGETS * sooner * (gradient**2 - squares)
        wanted = fusion.RATE * np.sqrt(sooner) * gradient / np.sqrt(squares + 1e-4)
        model.ranks(one, strange[q : q + 1], learns=True)
        assert model.weights[1] - before == pytest.approx(wanted, abs=1e-3)
        assert model.losses[1, 0] == pytest.approx(lately, abs=1e-3)
        moved.append(sooner)
    assert moved[0] == 1.0
    assert max(moved) > 3.0
    assert model.eager


def test_nothing_is_known_of_a_session_by_its_last_item() -> None:
    unused = {name for name, used in zip(FEATURES, USED[0], strict=True) if not used}
    assert unused == {name for name in COUNTED if "session" in name} | {"again", "session"}


def test_the_same_rounds_teach_the_same_and_measuring_learns_nothing_of_the_future() -> None:
    rows = log_of(1, n=800)
    one, again = (learned(rows, settings(sample=32)) for _ in range(2))
    assert one.fusion.trials == again.fusion.trials > 200
    assert one.fusion.weights.tobytes() == again.fusion.weights.tobytes()
    known = one.fusion.weights.copy()
    # What is ranked depends on what came before alone: the rest of a round changes no first rank.
    last = rows[-1][2]
    part = [(f"u{n}", f"i{(3 * n) % 25}", last + 1) for n in range(12)]
    first = one.step(Inputs(clicks(part[:6]))).quality
    assert first.trials <= 6
    assert (known != one.fusion.weights).any()
