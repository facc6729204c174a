"""What `walkstream evaluate` knows of sessions, for clicks in any order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from core.engine import Engine
from core.graph.fold import BEGINS
from core.rounds import Inputs
from streamer.evaluate.knn import SessionNeighbours
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Model
from tests.property.strategies import GAP, HORIZON, Click, click_lists, small_settings, to_clicks


@given(
    st.lists(
        click_lists(late=3 * GAP, size=40, with_ids=True)
        | click_lists(late=2 * HORIZON, size=40, users=2),
        min_size=2, max_size=4,
    ),
    st.sampled_from([3, 500]), st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_sessions_are_those_of_the_engine_however_late_a_user_is(
    batches: list[list[Click]], max_events: int, unseen: bool
) -> None:
    chosen = small_settings(max_events=max_events)
    engine, past = Engine(chosen), Past(chosen)
    twin, visits = Engine(chosen), 0
    for rows in batches:
        positions = past.take(to_clicks(rows), len(rows))
        for session, history in zip(positions.sessions, positions.history, strict=True):
            known = history[history >= 0].tolist()
            assert session[::-1][: len(known)].tolist() == known
            assert len(known) == min(len(session), chosen.session.length)
        asked = Asked(engine, past, positions, unseen)
        if len(asked):
            found = Model(("hybrid",), 0.5)(asked) | SessionNeighbours(past, GAP)(asked)
            for ranks in found.values():
                assert ((ranks >= 0) & (ranks <= asked.last)).all()
        past.learn()
        engine.step(Inputs(to_clicks(rows)))
        target = twin.fold(to_clicks(rows)).target
        visits += int(((target >= 0) | (target == BEGINS)).sum())
        # Each click on another item than the one before is in one session, and in no other.
        assert sum(map(len, past.sessions())) == visits
