"""Which ids are admitted, beside a plain model of it, for any clicks."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.engine import Engine
from core.graph.fold import DUPLICATE, HELD, KEPT, SHOWN, TOO_LONG
from core.settings import AdmissionSettings, Duration
from tests.property.strategies import (
    GAP,
    START_MS,
    Click,
    click_lists,
    holding_back,
    small_settings,
    to_clicks,
)
from tests.property.test_fold import graph_of, state_of


@dataclass
class Count:
    time: int
    clicks: int = 0
    events: list[tuple[str, int]] = field(default_factory=list)
    """Of users, the last ones that were held back."""
    users: set[str] = field(default_factory=set)
    is_admitted: bool = False


class Plain:
    """What the table should be: a dict. Ids whose hashes decide a tie are not told apart by it, so
    no two of one time may leave apart: see `make_room`."""

    def __init__(self, chosen: AdmissionSettings) -> None:
        self.chosen, self.now = chosen, 0
        self.counts: dict[str, Count] = {}

    @property
    def counted(self) -> list[str]:
        return [item for item, one in self.counts.items() if not one.is_admitted]

    @property
    def most(self) -> int:
        return max(self.chosen.most, (len(self.counts) - len(self.counted)) // 8)

    def is_ambiguous(self) -> bool:
        """Whether of ids with one time some would leave, and others stay."""
        times = sorted(self.counts[item].time for item in self.counted)
        out = len(times) - self.most * 3 // 4
        return times[out - 1] == times[out]

    def make_room(self) -> None:
        order = sorted(self.counted, key=lambda item: self.counts[item].time)
        for item in order[: len(order) - self.most * 3 // 4]:
            del self.counts[item]

    def is_repeat(self, click: Click) -> bool:
        user, item, time, _, event = click
        one = self.counts.get(item)
        if one is None or event == 0:
            return False
        is_forgotten = max(self.now, time) - one.time > self.chosen.forget
        return (one.is_admitted or not is_forgotten) and (user, event) in one.events

    def fate(self, click: Click) -> int:
        user, item, time, _, event = click
        self.now = max(self.now, time)
        one = self.counts.get(item)
        if one is not None and one.is_admitted:
            one.time = max(one.time, time)
            return KEPT
        if one is None or self.now - one.time > self.chosen.forget:
            one = self.counts[item] = Count(time)
        one.time = max(one.time, time)
        one.clicks += 1
        one.users.add(user)
        users = self.chosen.min_users
        if one.clicks < self.chosen.min_events or len(one.users) < users:
            if event:
                kept = max(self.chosen.min_events - 1, users if users > 1 else 0)
                one.events = [(user, event), *one.events][:kept]
            return HELD
        one.is_admitted, one.time = True, time
        return KEPT

    def leave(self, gone: dict[str, int]) -> None:
        for item, since in gone.items():
            if item in self.counts and self.counts[item].time < since:
                del self.counts[item]


@given(
    st.lists(
        click_lists(users=5, items=12, late=3000, with_ids=True, shown=0.2), min_size=1, max_size=4
    ),
    holding_back, st.sampled_from([3, 500]), st.data(),
)  # fmt: skip
@example(
    [[(f"u{n}", "i0", START_MS, 1.0, 0) for n in range(5)]],
    AdmissionSettings(2, 3, Duration(GAP)), 500, None,
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_ids_are_admitted_as_by_a_plain_model(
    batches: list[list[Click]], admission: AdmissionSettings, max_events: int,
    data: st.DataObject | None,
) -> None:  # fmt: skip
    chosen = small_settings(max_events=max_events, admission=admission)
    engine, plain = Engine(chosen), Plain(chosen.admission_ms)
    in_sessions: set[tuple[str, int]] = set()
    for rows in batches:
        # As nothing but hashes may tell ids of one time apart, times differ.
        rows = [(u, i, t * 1000 + n, w, e) for n, (u, i, t, w, e) in enumerate(rows)]
        for row in rows:
            (found,) = engine.fold(to_clicks([row])).fate.tolist()
            assert (found == SHOWN) == (row[3] < 0.0)
            if found == SHOWN:
                continue
            if plain.is_repeat(row):
                assert found == DUPLICATE
            if found == DUPLICATE:
                assert plain.is_repeat(row) or (row[0], row[4]) in in_sessions
                continue
            if len(plain.counted) >= plain.most:
                if plain.is_ambiguous():
                    return
                plain.make_room()
            if found == TOO_LONG:
                plain.now = max(plain.now, row[2])
            else:
                assert found == plain.fate(row)
            if found != HELD:
                in_sessions.add((row[0], row[4]))
        table = engine.catalogue.admission
        assert (table.counted, table.admitted) == (
            (len(plain.counted), len(plain.counts) - len(plain.counted))
        )
        if data is not None:
            names = st.sampled_from([f"i{n}" for n in range(12)])
            since = st.sampled_from([plain.now - GAP, plain.now + 1])
            gone = data.draw(st.dictionaries(names, since, max_size=4))
            engine.catalogue.leave_if_unseen(gone)
            plain.leave(gone)


@given(click_lists(users=6, items=20, size=150, shown=0.1), holding_back)
@settings(max_examples=100, deadline=None)
def test_sessions_and_graph_are_as_if_what_is_held_back_had_not_been(
    rows: list[Click], admission: AdmissionSettings
) -> None:
    counts = Engine(small_settings(admission=admission))
    fate = counts.fold(to_clicks(rows)).fate
    kept = [row for row, what in zip(rows, fate.tolist(), strict=True) if what != HELD]
    admits = Engine(small_settings())
    assert HELD not in admits.fold(to_clicks(kept)).fate
    got, wanted = graph_of(counts), graph_of(admits)
    # Weights are on scales that begin with the first click, held back or not.
    assert {name: row[:2] for name, row in got.items()} == {
        name: row[:2] for name, row in wanted.items()
    }
    assert counts.vocabulary.keys == admits.vocabulary.keys
    assert (
        counts.graph.clicks[: len(wanted)].tolist() == admits.graph.clicks[: len(wanted)].tolist()
    )


@given(
    click_lists(users=6, items=8, size=40), st.integers(1, 20), st.integers(2, 4), st.integers(1, 3)
)
@settings(max_examples=100, deadline=None)
def test_batches_that_are_sent_again_change_nothing(
    rows: list[Click], size: int, events: int, users: int
) -> None:
    """Each batch comes twice, as from a producer that heard of no acknowledgement."""
    # One moment: no session ends, and nothing is forgotten.
    now = [(u, i, START_MS, w, 1 + n) for n, (u, i, _, w, _) in enumerate(rows)]
    chosen = small_settings(event_ids=64, admission=AdmissionSettings(events, users))
    once, twice = Engine(chosen), Engine(chosen)
    for begin in range(0, len(now), size):
        batch = to_clicks(now[begin : begin + size])
        fate = once.fold(batch).fate
        assert np.array_equal(twice.fold(batch).fate, fate)
        held = [one[1] for one, what in zip(now[begin:], fate.tolist(), strict=False)
                if what == HELD]  # fmt: skip
        if max(map(held.count, held), default=0) > max(events - 1, users if users > 1 else 0):
            return  # more than an entry remembers
        assert (twice.fold(batch).fate == DUPLICATE).all()
    assert state_of(twice) == state_of(once)


@given(st.integers(1, 3000), st.integers(0, 2**32), st.sampled_from([1, 2, 3, 8]))
@settings(max_examples=30, deadline=None)
def test_what_leaves_leaves_no_gap_in_the_table(n: int, seed: int, users: int) -> None:
    """Each id is found again, whatever left around it."""
    rng = np.random.default_rng(seed)
    engine = Engine(small_settings(admission=AdmissionSettings(2, users)))
    rows: list[Click] = [(f"u{k}", f"i{k}", START_MS, 1.0, 0) for k in range(n)]
    engine.fold(to_clicks(rows))
    table = engine.catalogue.admission
    left = rng.random(n) < rng.random()
    table.leave({f"i{k}": START_MS + 1 for k in np.flatnonzero(left)})
    assert table.counted == n - int(left.sum())
    again: list[Click] = [(f"v{k}", f"i{k}", START_MS, 1.0, 0) for k in range(n)]
    fate = engine.fold(to_clicks(again)).fate
    admitted = ~left if users <= 2 else np.zeros(n, np.bool_)
    assert np.array_equal(fate == KEPT, admitted)
    assert np.array_equal(fate == HELD, ~admitted)
