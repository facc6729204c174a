"""Accumulators that forget: beside sums in float64 that are weighed by the age of each gradient."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.graph.graph import NEVER, Graph
from core.graph.slabs import Slabs
from core.learning.adagrad import Pace, decayed, landmark_of
from core.learning.negatives import pool
from core.learning.skipgram import Rows, learn_sessions, learn_walks
from core.model import Model
from core.settings import Duration, GraphSettings, ModelSettings, Settings

HALF_LIFE = 1000
RATE, INITIAL = 0.1, 0.01


def model(forgetting: float) -> Model:
    """Ten rows of random vectors."""
    made = Model(
        Settings(
            graph=GraphSettings(half_life=Duration(HALF_LIFE)),
            model=ModelSettings(
                dim=16, rate=RATE, initial_accumulator=INITIAL, forgetting=forgetting
            ),
        )
    )
    made.reserve(10)
    made.rows.owned[:] = True
    rng = np.random.default_rng(1)
    for table in (made.rows.v, made.rows.u):
        table[:] = rng.uniform(-0.5, 0.5, table.shape)
    return made


def arcs() -> Slabs:
    """A graph without arcs."""
    graph = Graph(4)
    graph.reserve(10)
    return graph.slabs()


def learn(rows: Rows, pace: Pace) -> None:
    """One pair there and back by each kernel, with no negatives."""
    items = pool(np.array([9], np.int32), np.ones(1, np.float32), 0.0)
    walks = np.array([[0, 1]], np.int32)
    learn_walks(
        rows, walks, items, window=1, shrink=False, block=4, pace=pace, negatives=0, hardest_of=1,
        seed=1, round_number=1,
    )  # fmt: skip
    history, target = np.array([[2]], np.int32), np.array([3], np.int32)
    settings = ModelSettings(seed=1, session_passes=1, session_negatives=1)
    learn_sessions(rows, history, target, arcs(), items, settings, round_number=1, pace=pace)


def squares(rows: Rows) -> NDArray[np.float64]:
    """How much the accumulators of V and U grow by `learn` at first, float64 [2, n]."""
    copy = Rows(**{name: np.copy(table) for name, table in vars(rows).items()})
    copy.acc_v[:] = copy.acc_u[:] = 0
    learn(copy, Pace.of(RATE, INITIAL))
    return np.array([copy.acc_v, copy.acc_u], np.float64)


@pytest.mark.parametrize("forgetting", [0.0, 0.5, 1.0, 4.0])
def test_an_accumulator_is_the_sum_of_squares_by_their_age(forgetting: float) -> None:
    """The closed form, over times within a half-life, past some, and past very many."""
    m = model(forgetting)
    rows, want, before = m.rows, np.zeros((2, len(m.rows.v))), 0
    for time in (10_300, 10_350, 10_999, 11_000, 14_500, 14_501, 90_000):
        want *= 2.0 ** (-(time - before) * forgetting / HALF_LIFE) if before else 1.0
        before = time
        v, u, now = rows.v.astype(np.float64), rows.u.astype(np.float64), squares(rows)
        learn(rows, pace := m.pace(time, RATE))
        want += now
        got = np.array([rows.acc_v, rows.acc_u]) / pace.gain
        assert got == pytest.approx(want, rel=1e-4, abs=1e-9)
        # A row moves by its gradient, whose length is known, over the root. Those of sessions have
        # two, there and back.
        for table, old, sums, new in ((rows.v, v, want[0], now[0]), (rows.u, u, want[1], now[1])):
            moved = np.sqrt(((table - old) ** 2).mean(axis=1))
            far = RATE * np.sqrt(new / (INITIAL + sums))
            assert moved[:2] == pytest.approx(far[:2], rel=2e-3)
            assert (moved[2:] < 1.5 * far[2:] + 1e-9).all()


def test_a_row_that_waited_through_many_landmarks_is_the_same_as_one_that_took_each() -> None:
    rng = np.random.default_rng(2)
    first = np.exp2(rng.uniform(-120, 30, 5000)).astype(np.float32)
    landmark = np.array(8 * HALF_LIFE)
    for steps in ([1] * 90, [3, 80, 7], [1000, 1, 2], [100_000]):
        here, at = first, 8 * HALF_LIFE
        for step in steps:
            here = decayed(here, np.array(at), at + step * HALF_LIFE, HALF_LIFE)
            at += step * HALF_LIFE
        assert here.tobytes() == decayed(first, landmark, at, HALF_LIFE).tobytes()
        assert (here == 0).any()


def test_what_has_no_landmark_or_a_later_one_stays_as_it_is() -> None:
    acc = np.array([1e-40, 1.0, 3.0, 5.0], np.float32)
    landmark = np.array([NEVER, 4000, 9000, 3000])
    assert decayed(acc, landmark, 4000, 1000).tolist() == [acc[0], 1.0, 3.0, 2.5]
    assert decayed(acc, landmark, 4500, 0).tolist() == acc.tolist()
    assert decayed(acc, landmark, NEVER, 1000).tolist() == acc.tolist()
    between = decayed(acc[1:2], np.array([4500]), 5000, 1000)  # of another half-life
    assert between == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(("written", "now"), [(1000, 4000), (4000, 1000), (0, 1000), (1000, 0)])
def test_what_was_written_under_another_half_life_is_what_it_was_at_the_time(
    written: int, now: int
) -> None:
    """What an accumulator is when the worker starts again does not follow from the new setting."""

    def of(half_life: int) -> Model:
        graph = GraphSettings(half_life=Duration(half_life or 1000))
        made = Model(
            Settings(graph=graph, model=ModelSettings(dim=16, forgetting=1.0 if half_life else 0.0))
        )
        made.reserve(3)
        return made

    def accumulators(model: Model) -> NDArray[np.float64]:
        gain = np.float64(model.pace(8700, RATE).gain)
        return np.asarray(model.rows.acc_v, np.float64) / gain

    old, slots, seen = of(written), np.arange(3, dtype=np.int32), np.zeros(3, np.int64)
    old.age(8700)
    old.rows.acc_v[:] = [0.0, 1.0, 300.0]
    new = of(now)
    new.age(8700)
    new.unpack(slots, old.pack(slots, seen))
    assert accumulators(new) == pytest.approx(accumulators(old), rel=1e-5)


def test_a_landmark_is_the_last_whole_half_life() -> None:
    assert [landmark_of(time, 1000) for time in (0, 999, 1000, -1)] == [0, 0, 1000, -1000]
    assert landmark_of(1234, 0) == 1234
    assert landmark_of(NEVER, 1000) == NEVER


def test_rows_that_were_packed_at_any_time_are_those_of_the_model_that_went_on() -> None:
    m, slots = model(1.0), np.arange(10, dtype=np.int32)
    seen = np.zeros(10, np.int64)
    learn(m.rows, m.pace(1300, RATE))
    packed = m.pack(slots, seen)
    m.pace(7800, RATE)
    again = model(1.0)
    again.age(7800)
    again.unpack(slots, packed)
    assert again.rows.acc_u.tobytes() == m.rows.acc_u.tobytes()
    assert again.pack(slots, seen).tobytes() == m.pack(slots, seen).tobytes()
    assert (m.rows.acc_u[:4] > 0).any()
