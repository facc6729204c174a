from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.catalogue import Catalogue
from core.clicks import Clicks
from core.engine import Engine
from core.graph.slabs import LOCAL, TOPIC
from core.graph.written import Snapshot
from core.rounds import Evidence, Inputs
from core.settings import AdmissionSettings, Duration, SessionSettings
from streamer.errors import WalkstreamError
from streamer.state import packing, records
from streamer.state.store import POINTER, Store
from streamer.worker import checkpoint
from streamer.worker import sweeping as sweeping_of
from streamer.worker.sweeping import PART_BYTES, Sweeping, as_entries
from tests.folders import counts_of
from tests.unit.state.made import SETTINGS, batches

START = 1_700_000_000_000


def remembered(engine: Engine) -> dict[str, Any]:
    """Graph, sessions and clock by id, so that slots do not matter."""
    names, g, ses = engine.vocabulary.keys, engine.graph, engine.sessions

    def named(slots: NDArray[np.int32]) -> list[str | None]:
        return [names[slot] for slot in slots]

    nodes = [slot for slot in range(len(names)) if g.last_seen[slot] >= 0]
    return {
        "graph": {
            names[slot]: (int(g.last_seen[slot]), named(nbr), wgt.tobytes())
            for slot in nodes
            for nbr, wgt in [g.row(slot)]
        },
        "sessions": {
            user: (int(ses.time[at]), named(ses.items[at, : ses.size[at]]))
            for user, at in ses.users.items()
        },
        "clock": (engine.clock.time, engine.clock.landmark),
    }


def learn(store: Store, engine: Engine, clicks: Clicks) -> None:
    """Items leave on the way, and their rows of the graph with them."""
    changes = engine.step(Inputs(clicks)).changes
    assert changes is not None
    store.write_changes(changes, {})


Step = Callable[[Store, Engine, Clicks], object]
STEPS: dict[str, Step] = {
    "learned": learn,
    "only folded": lambda _, engine, clicks: engine.fold(clicks),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_folder_gives_back_graph_and_sessions(store: Store, step: Step) -> None:
    engine = Engine(SETTINGS, 1)
    wrote = []
    for n, clicks in enumerate(batches(16), 1):
        step(store, engine, clicks)
        wrote.append(checkpoint.save(store, engine, n, 7 * n))
        loaded = Engine(SETTINGS, 1)
        at = checkpoint.load(store, loaded)
        assert at is not None
        assert (at.commit, at.offset, loaded.round_number) == (n, 7 * n, engine.round_number)
        assert remembered(loaded) == remembered(engine)
    assert min(wrote) > 0
    assert wrote[-1] < len(engine.vocabulary), "only what changed is written"


def test_what_is_saved_already_is_not_written_again(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.step(Inputs(clicks))
    assert checkpoint.save(store, engine, 1, 0) > 0
    assert checkpoint.save(store, engine, 1, 0) == 0


def test_graph_size_counts_nodes_and_arcs_of_the_checkpoint(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.fold(clicks)
    assert checkpoint.size(store) == (0, 0)
    checkpoint.save(store, engine, 1, 0)
    assert checkpoint.size(store) == (len(set(clicks.items)), engine.graph.arcs)


def test_a_folder_without_a_checkpoint_has_none(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    assert checkpoint.load(store, engine) is None
    assert checkpoint.newest(store) is None
    assert checkpoint.sessions(store) == 0
    assert remembered(engine) == remembered(Engine(SETTINGS, 1))


def test_the_newest_sweep_counts_be_it_of_the_folder_or_of_the_topic(store: Store) -> None:
    """Each says with which sessions it goes: the parts of the other are not mixed in."""
    engine = Engine(SETTINGS, 1)
    topic, folder = Sweeping(engine, TOPIC, None, {}), Sweeping(engine, LOCAL, None, {})
    later = {2: (topic, records.SWEPT), 3: (folder, POINTER), 4: (topic, records.SWEPT)}
    for n, clicks in enumerate(batches(4), 1):
        engine.step(Inputs(clicks))
        for sweeping, pointer in (topic, records.SWEPT), (folder, POINTER):
            if n == 1 or later[n][0] is sweeping:
                sweeping.begin(n, n)
                written = sweeping.take(n, checkpoint.ALL, checkpoint.ALL)
                store.write_entries(as_entries(written, pointer))
        found = checkpoint.newest(store)
        assert found is not None
        assert found[1].commit == n
        if n > 1:
            assert found[0] == later[n][1]
        loaded = Engine(SETTINGS, 1)
        checkpoint.load(store, loaded)
        assert remembered(loaded) == remembered(engine)
    assert checkpoint.sessions(store) == len(engine.sessions.open)


@pytest.mark.parametrize("harm", ["missing", "foreign"])
def test_sessions_that_are_missing_or_of_another_sweep_are_told(store: Store, harm: str) -> None:
    engine = Engine(SETTINGS, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 1, 0)
    (key, old) = next(store.scan("sessions"))
    engine.step(Inputs(second))
    checkpoint.save(store, engine, 2, 1)
    at = checkpoint.swept(store, POINTER)
    assert at is not None
    harmed = POINTER + records.sessions_key(at.turn, 0)
    assert harmed != key, "sweeps take turns, so that one that is cut short harms nothing"
    store.write_entries({"sessions": [(harmed, None if harm == "missing" else old)]})
    what = "missing" if harm == "missing" else "of commit 1"
    with pytest.raises(WalkstreamError, match=f"commit 2, part 0 of 1 is {what}.*Delete it"):
        checkpoint.load(store, Engine(SETTINGS, 1))


def test_a_sweep_that_is_cut_short_leaves_the_one_before_it(store: Store) -> None:
    """What it wrote is of later commits, and says so; evidence since the first is folded around."""
    engine = Engine(SETTINGS, 1)
    first, second, third = batches(3)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 1, 0)
    rounds = [engine.step(Inputs(second)).evidence]
    cut = checkpoint.of(store, engine, POINTER)
    cut.begin(2, 1)
    store.write_entries(as_entries(cut.take(2, 20, checkpoint.ALL), POINTER))
    rounds.append(engine.step(Inputs(third)).evidence)
    loaded = Engine(SETTINGS, 1)
    at = checkpoint.load(store, loaded)
    assert at is not None
    assert at.commit == 1
    assert sorted({one.cut for _, one in checkpoint.nodes(store)}) == [1, 2]
    for commit, one in enumerate(rounds, 2):
        loaded.fold_again(one, commit)
    loaded.load_rows([])
    assert remembered(loaded) == remembered(engine)


def test_another_half_life_is_converted_once_through_a_common_time(store: Store) -> None:
    """Whatever comes later, no row is converted through another time than the rest."""
    engine = Engine(SETTINGS, 1)
    (clicks,) = batches(1)
    engine.step(Inputs(clicks))
    checkpoint.save(store, engine, 1, 0)
    hour = replace(SETTINGS, graph=replace(SETTINGS.graph, half_life=Duration(3_600_000)))
    again = Engine(hour, 1)
    checkpoint.load(store, again)
    again.load_rows([])
    assert decayed(again) == pytest.approx(decayed(engine), rel=1e-5)
    later = int(clicks.times[-1]) + 30 * 3_600_000
    again.fold(Clicks(["u"], ["other"], np.array([later], np.int64), np.ones(1, np.float32)))
    assert checkpoint.save(store, again, 2, 1) > len(engine.vocabulary), "all are written anew"
    once_more = Engine(hour, 1)
    checkpoint.load(store, once_more)
    once_more.load_rows([])
    assert remembered(once_more) == remembered(again)
    assert decayed(once_more)["other"] == pytest.approx(1.0)


def decayed(engine: Engine) -> dict[str, float]:
    """By item, its count as of the newest click."""
    scale, names = engine.scale, engine.vocabulary.keys
    now = 2.0 ** ((scale.landmark - scale.now) / scale.half_life)
    return {str(names[slot]): engine.graph.clicked[slot] * now for slot in engine.items}


def test_an_item_that_left_and_was_described_again_in_one_commit_has_no_old_row(
    store: Store,
) -> None:
    """No tombstone leaves, so its new row, without a click, is written over the old one."""
    chosen = replace(SETTINGS, model=replace(SETTINGS.model, attribute_slots=1))
    engine = Engine(chosen, 1)
    (clicks,) = batches(1)
    item = clicks.items[0]
    key, told = item.encode(), [(item, ["c=x"])]
    engine.step(Inputs(clicks, told))
    checkpoint.save(store, engine, 1, 0)
    before = checkpoint.node(store, key)
    assert before is not None
    assert before.clicked > 0
    engine.step(Inputs(Clicks.empty(), [(item, None)], closes_commit=False))
    changes = engine.step(Inputs(Clicks.empty(), told)).changes
    assert changes is not None
    assert key not in [one.key for one in changes.gone]
    checkpoint.save(store, engine, 2, 1)
    after = checkpoint.node(store, key)
    assert after is not None
    assert (after.clicked, after.neighbours) == (0, [])


def folded(engine: Engine, users: list[str], items: list[str], time: int) -> Clicks:
    n = len(users)
    clicks = Clicks(users, items, np.full(n, time, np.int64), np.ones(n, np.float32))
    engine.fold(clicks)
    engine.round_number += 1
    return clicks


def swept_whole(store: Store, engine: Engine, commit: int, rows: int = 500) -> None:
    """A sweep of the topic, with as many commits as it takes, of so many records each."""
    sweeping = checkpoint.of(store, engine, records.SWEPT)
    sweeping.begin(commit, 0)
    while sweeping.is_under_way:
        written = sweeping.take(commit, rows, checkpoint.ALL)
        assert written.records <= rows + 1
        store.write_entries(as_entries(written, records.SWEPT))


def test_no_record_of_sessions_is_too_long_whatever_the_ids_are(store: Store) -> None:
    engine = Engine(replace(SETTINGS, session=SessionSettings(gap=Duration(10**9))), 1)
    rng = np.random.default_rng(1)
    users = [rng.bytes(250).hex() for _ in range(300)]
    for _ in range(20):
        folded(engine, users, [rng.bytes(250).hex() for _ in users], START)
    swept_whole(store, engine, 1)
    values = store.everything("sessions").values()
    assert max(map(len, values)) <= PART_BYTES
    assert len(values) > 1
    assert checkpoint.sessions(store) == 300
    loaded = Engine(engine.settings, 1)
    checkpoint.load(store, loaded)
    loaded.load_rows([])
    assert remembered(loaded)["sessions"] == remembered(engine)["sessions"]


def test_users_of_a_sweep_that_was_cut_short_do_not_stay(store: Store) -> None:
    """A stop in the middle of one, at the peak of a day, and then quiet hours."""
    engine, gap = Engine(SETTINGS, 1), int(SETTINGS.session.gap)
    for hour in range(2):
        folded(engine, [f"early-{n}" for n in range(400)], ["a"] * 400, START + hour * 2 * gap)
        swept_whole(store, engine, hour + 1)
    peak = [f"peak-{n}" for n in range(5000)]
    folded(engine, peak, ["a"] * 5000, START + 4 * gap)
    cut = checkpoint.of(store, engine, records.SWEPT)
    cut.begin(3, 0)
    store.write_entries(as_entries(cut.take(3, 9, checkpoint.ALL), records.SWEPT))
    for hour in range(2):
        folded(engine, [f"late-{n}" for n in range(40)], ["a"] * 40, START + (6 + 2 * hour) * gap)
        swept_whole(store, engine, hour + 4, rows=5)
    left = [
        user
        for value in store.everything("sessions").values()
        for user in packing.unpack_sessions(value)[1].users
    ]
    assert len(left) == 80
    assert not set(left) & set(peak)


@pytest.mark.parametrize("days", [2, 14])
def test_another_half_life_takes_items_alike_that_were_swept_at_different_times(
    store: Store, days: int
) -> None:
    """A row that was swept late has clicks that came after the sweep began."""
    day = 86_400_000
    graph = replace(SETTINGS.graph, half_life=Duration(7 * day), horizon=Duration(10_000 * day))
    engine, commits = Engine(replace(SETTINGS, graph=graph), 1), range(1, 21)
    topic, clicks = checkpoint.of(store, engine, records.SWEPT), []
    for commit in commits:
        clicks.append(folded(engine, ["u", "v"], ["early", "late"], START + commit * day))
        if commit == 1:
            topic.begin(1, 0)
        if commit in (1, 20):
            written = topic.take(commit, 2 if commit == 1 else 10, checkpoint.ALL)
            store.write_entries(as_entries(written, records.SWEPT))
    assert {one.cut for _, one in checkpoint.nodes(store)} == {1, 20}
    loaded = Engine(replace(SETTINGS, graph=replace(graph, half_life=Duration(days * day))), 1)
    checkpoint.load(store, loaded)
    for commit in commits[1:]:
        loaded.fold_again(Evidence(commit, {}, (), clicks[commit - 1], {}), commit)
    loaded.load_rows([])
    early, late = (
        float(loaded.graph.clicked[loaded.vocabulary.intern([name])[0]])
        for name in ("early", "late")
    )
    # One has aged by the old half-life until the end of the sweep, and the other until its start.
    assert 0.25 < early / late < 4


# -- ids that are counted ------------------------------------------------------------------------


COUNTED = replace(SETTINGS, admission=AdmissionSettings(2, 2))


@pytest.mark.parametrize("rows", [1, 500])
def test_ids_that_are_counted_come_back_as_they_were_when_the_sweep_began(
    store: Store, rows: int
) -> None:
    engine = Engine(COUNTED, 1)
    folded(engine, [f"u{n}" for n in range(20_000)], [f"i{n}" for n in range(20_000)], START)
    folded(engine, [f"v{n}" for n in range(50)], [f"i{n}" for n in range(50)], START)
    wanted = counts_of(engine)
    sweeping = checkpoint.of(store, engine, records.SWEPT)
    sweeping.begin(1, 0)
    folded(engine, ["w"], ["i60"], START)  # comes after it
    while sweeping.is_under_way:
        written = sweeping.take(1, rows, checkpoint.ALL)
        store.write_entries(as_entries(written, records.SWEPT))
    values = store.everything("sessions").values()
    assert max(map(len, values)) <= PART_BYTES
    loaded = Engine(COUNTED, 1)
    at = checkpoint.load(store, loaded)
    assert at is not None
    assert at.counted == 4
    assert counts_of(loaded) == wanted != counts_of(engine)
    loaded.load_rows([])
    assert loaded.catalogue.admission.admitted == 51, "its row was written with the click"


def test_a_sweep_lets_go_of_counted_ids_before_it_writes_the_graph(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, made = Engine(COUNTED, 1), list[Snapshot]()
    users = [f"{user}{n}" for user in "uv" for n in range(50)]
    folded(engine, users, [f"i{n}" for n in range(50)] * 2, START)

    def noted(catalogue: Catalogue) -> Snapshot:
        made.append(Snapshot(catalogue))
        return made[-1]

    monkeypatch.setattr(sweeping_of, "Snapshot", noted)
    sweeping = checkpoint.of(store, engine, records.SWEPT)
    sweeping.begin(1, 0)
    assert made[0].counted is not None
    written = sweeping.take(1, 2, checkpoint.ALL)
    assert (len(written.sessions), len(written.graph)) == (2, 0)
    assert made[0].counted is None
    assert sweeping.is_under_way


def test_where_nothing_was_counted_what_the_graph_has_counts_as_admitted(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    folded(engine, ["u", "v"], ["a", "b"], START)
    checkpoint.save(store, engine, 1, 0)
    loaded = Engine(COUNTED, 1)
    at = checkpoint.load(store, loaded)
    assert at is not None
    assert at.counted is None
    assert loaded.catalogue.admission.admitted == 2
    loaded.load_rows([])
    # And the folder gets it at once, though all else is there already.
    assert checkpoint.save(store, loaded, 1, 0) > 0
    newest = checkpoint.newest(store)
    assert newest is not None
    assert newest[1].counted == 1
