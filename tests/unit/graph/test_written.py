"""Graph and sessions as they are written, a part at a time, and read back with other settings."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.graph.graph import NEVER, Graph
from core.graph.slabs import LOCAL, TOPIC, UNWRITTEN
from core.graph.sweep import Sweep
from core.graph.written import Node, Scale, Snapshot, load_nodes, load_sessions, nodes
from core.rounds import Evidence
from core.settings import Duration, GraphSettings, SessionSettings, Settings

HALF_LIFE = 1000
START = 1_700_000_000_000


def settings(half_life: int = HALF_LIFE, max_degree: int = 8) -> Settings:
    return Settings(
        session=SessionSettings(gap=Duration(500), length=3),
        graph=GraphSettings(half_life=Duration(half_life), max_degree=max_degree),
    )


def clicks(rows: list[tuple[str, str, int]]) -> Clicks:
    return Clicks(
        [user for user, _, _ in rows],
        [item for _, item, _ in rows],
        np.array([START + time for _, _, time in rows], np.int64),
        np.ones(len(rows), np.float32),
    )


def folded(chosen: Settings, rows: list[tuple[str, str, int]]) -> Engine:
    engine = Engine(chosen)
    engine.fold(clicks(rows))
    return engine


def slots_of(engine: Engine) -> NDArray[np.int32]:
    return np.arange(len(engine.vocabulary), dtype=np.int32)


def reloaded(engine: Engine, chosen: Settings, found: list[tuple[bytes, Node]]) -> Engine:
    again = Engine(chosen)
    half_life = int(chosen.graph.half_life)
    again.clock.time = engine.clock.time
    again.clock.landmark = engine.clock.landmark
    if half_life != int(engine.settings.graph.half_life):
        again.clock.landmark = engine.clock.time // half_life * half_life
    load_nodes(again.catalogue, found, 1, again.scale)
    return again


def decayed(engine: Engine, at: int) -> dict[str, tuple[float, dict[str, float]]]:
    """By item, its count and its arcs, as of a time."""
    half_life, names = int(engine.settings.graph.half_life), engine.vocabulary.keys
    now = 2.0 ** ((engine.clock.landmark - START - at) / half_life)
    out = {}
    for slot in slots_of(engine).tolist():
        nbr, wgt = engine.graph.row(slot)
        arcs = {str(names[b]): float(w) * now for b, w in zip(nbr, wgt, strict=True)}
        out[str(names[slot])] = float(engine.graph.clicked[slot]) * now, arcs
    return out


# -- sweeps --------------------------------------------------------------------------------------


def graph_of(n: int) -> Graph:
    """One with n slots, none of which is written."""
    graph = Graph(8)
    graph.reserve(n)
    graph.last_seen[:n] = 1
    graph.changed[:n] = UNWRITTEN
    return graph


@pytest.mark.parametrize("block", [1, 3, 8, 1 << 16])
def test_a_sweep_takes_each_changed_row_once_however_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("core.graph.sweep.BLOCK", block)
    graph, rng = graph_of(40), Random(block)
    graph.changed[[3, 4, 5, 17, 39]] = LOCAL
    sweep, taken = Sweep(TOPIC), list[int]()
    while not sweep.is_over(graph):
        taken += (part := sweep.take(graph, rng.randrange(1, 7)).tolist())
        assert part
        assert (graph.changed[part] == LOCAL).all(), "the folder still lacks them"
    assert taken == sorted({*range(40)} - {3, 4, 5, 17, 39})
    assert sweep.take(graph, 5).tolist() == []


def test_what_changes_behind_a_sweep_waits_for_the_next() -> None:
    graph, sweep = graph_of(10), Sweep(LOCAL)
    assert sweep.take(graph, 4).tolist() == [0, 1, 2, 3]
    graph.changed[[1, 8]] |= LOCAL
    assert sweep.take(graph, 99).tolist() == [4, 5, 6, 7, 8, 9]
    assert sweep.is_over(graph)
    assert Sweep(LOCAL).take(graph, 99).tolist() == [1]


@pytest.mark.parametrize("seed", range(8))
def test_a_sweep_follows_when_slots_are_numbered_anew_in_the_middle(seed: int) -> None:
    graph, sweep, rng = graph_of(30), Sweep(TOPIC), Random(seed)
    names = [f"i{n}" for n in range(30)]
    taken = [names[slot] for slot in sweep.take(graph, rng.randrange(25))]
    kept = sorted(rng.sample(range(30), 20))
    new = np.full(len(graph.degree), -1, np.int32)
    new[kept] = np.arange(20)
    graph.relabel(np.array(kept), new)
    sweep.relabel(np.array(kept))
    names = [names[slot] for slot in kept]
    taken += [names[slot] for slot in sweep.take(graph, 99)]
    assert len(taken) == len(set(taken))
    assert set(taken) >= set(names), "none that is left was passed by"
    assert sweep.is_over(graph)


# -- rows ----------------------------------------------------------------------------------------

ROWS = [("u", "a", 0), ("u", "b", 10), ("v", "b", 2000), ("v", "c", 2100), ("w", "ü", 4000)]


def test_rows_come_back_as_they_were_in_their_order() -> None:
    engine = folded(settings(), ROWS)
    found = nodes(engine.catalogue, slots_of(engine), 1, engine.scale)
    again = reloaded(engine, settings(), found[::-1])
    assert decayed(again, 0) == decayed(engine, 0)
    assert [name for name, _ in found] == [b"a", b"b", b"c", "ü".encode()]
    assert not again.graph.unwritten(TOPIC).any()


def test_a_slot_that_is_no_node_has_no_row() -> None:
    engine = folded(settings(), ROWS)
    engine.graph.drop(np.array([1]))
    found = dict(nodes(engine.catalogue, slots_of(engine), 1, engine.scale))
    assert found.keys() == {b"a", b"c", "ü".encode()}
    assert found[b"a"].neighbours == []


def test_another_half_life_goes_on_from_the_same_counts() -> None:
    """At the newest time, 4 s, a click of the beginning counts 2^-4, by 1 s or by 2 s; after
    2 s more it counts half of that by a half-life of 2 s."""
    engine = folded(settings(), ROWS)
    found = nodes(engine.catalogue, slots_of(engine), 1, engine.scale)
    again = reloaded(engine, settings(2 * HALF_LIFE), found)
    for one in (engine, again):
        now = decayed(one, 4000)
        assert now["a"][0] == pytest.approx(2.0**-4)
        assert now["a"][1] == pytest.approx({"b": 2.0 ** (0.01 - 4)})
        assert now["b"][0] == pytest.approx(2.0 ** (0.01 - 4) + 2.0**-2)
        assert now["ü"][0] == pytest.approx(1)
    assert decayed(again, 6000)["a"][0] == pytest.approx(2.0**-5)
    assert again.graph.unwritten(TOPIC).tolist() == [0, 1, 2, 3], "so that it is done but once"


def test_half_lives_that_are_far_apart_leave_no_weight_out_of_bounds() -> None:
    engine = folded(settings(10), [("u", "old", 0), ("v", "a", 30_000), ("v", "b", 30_000)])
    found = nodes(engine.catalogue, slots_of(engine), 1, engine.scale)
    for half_life in (1, 10**9):
        again = reloaded(engine, settings(half_life), found)
        assert np.isfinite(again.graph.clicked).all()
        now = decayed(again, 30_000)
        assert now["a"][0] == pytest.approx(1)
        assert now["a"][1] == pytest.approx({"b": 1})
        assert now["old"][0] == 0


def test_of_more_neighbours_than_there_may_be_the_heaviest_stay_in_their_order() -> None:
    rows = []
    for n, weight in enumerate([3, 1, 5, 2, 5, 4, 1]):
        rows += [(f"u{n}-{i}", item, 0) for i in range(weight) for item in ("hub", f"n{n}")]
    engine = folded(settings(), rows)
    found = nodes(engine.catalogue, slots_of(engine), 1, engine.scale)
    again = reloaded(engine, settings(max_degree=4), found)
    count, arcs = decayed(again, 0)["hub"]
    assert count == 21
    assert list(arcs.items()) == [("n0", 3), ("n2", 5), ("n4", 5), ("n5", 4)]
    slot = again.vocabulary.get("hub") or 0
    assert again.graph.evicted[slot], "others may hold arcs that it does not hold"
    again.graph.drop(np.array([slot]))
    assert again.graph.arcs == 0


def test_what_has_no_row_yet_may_be_held_by_others() -> None:
    engine = folded(settings(), ROWS)
    found = nodes(engine.catalogue, np.array([0], np.int32), 1, engine.scale)
    again = reloaded(engine, settings(), found)
    b = again.vocabulary.get("b") or 0
    assert again.graph.last_seen[b] == NEVER
    again.graph.drop(np.array([b]))
    assert again.graph.arcs == 0


@pytest.mark.parametrize("leap", [70, 150, 1500])
def test_rows_of_later_commits_wait_on_their_own_scale(leap: int) -> None:
    """Seen from the landmark of an earlier commit their weights would be infinite."""
    live = folded(settings(), ROWS)
    first = nodes(live.catalogue, slots_of(live), 1, live.scale)
    at_first = live.scale
    sessions = Snapshot(live.catalogue)
    later = clicks([("x", "b", leap * HALF_LIFE), ("x", "d", leap * HALF_LIFE + 9)])
    live.fold(later)
    (row,) = nodes(live.catalogue, np.array([1], np.int32), 2, live.scale)
    last = clicks([("x", "b", leap * HALF_LIFE + 20)])
    live.fold(last)
    again = Engine(settings())
    again.clock.time, again.clock.landmark = at_first.now, at_first.landmark
    again.clock.partitions = np.array([at_first.now])
    load_nodes(again.catalogue, [row, *(one for one in first if one[0] != b"b")], 1, at_first)
    load_sessions(again.catalogue, [sessions.part(0, len(sessions))])
    assert np.isfinite(again.graph.clicked).all()
    for commit, some in ((2, later), (3, last)):
        again.fold_again(Evidence(commit, {}, [], some, {"d": 0} if commit == 2 else {}), commit)
    again.load_rows([])
    assert again.clock.landmark == live.clock.landmark > at_first.landmark
    assert decayed(again, leap * HALF_LIFE) == decayed(live, leap * HALF_LIFE)


def test_rows_whose_evidence_is_lost_take_the_landmark_with_them() -> None:
    engine = folded(settings(), ROWS)
    old = nodes(engine.catalogue, slots_of(engine), 1, engine.scale)
    later = replace(engine.clock, landmark=engine.clock.landmark + 300 * HALF_LIFE)
    scale = Scale(later.landmark, HALF_LIFE, engine.clock.time)
    (row,) = nodes(engine.catalogue, np.array([3], np.int32), 9, scale)
    again = reloaded(engine, settings(), [*old[:3], row])
    again.load_rows([])
    assert again.clock.landmark == later.landmark
    assert again.graph.clicked[again.vocabulary.get("ü") or 0] == engine.graph.clicked[3]
    assert again.graph.clicked[again.vocabulary.get("a") or 0] == 0
