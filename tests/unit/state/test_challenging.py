"""A challenger over a stop and a start: what the folder and the topic say of it."""

import hashlib
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from core.challenger import Promotion
from core.engine import Engine
from core.learning.tiers import Tiers
from core.rounds import Inputs
from core.rows import FORMAT
from core.settings import ChallengerSettings, Settings, WalkSettings
from streamer.settings import challenger
from streamer.settings.load import load
from streamer.state import records
from streamer.state.model_state import is_ours, order
from streamer.state.records import Promoted, Space
from streamer.state.store import Store
from streamer.watch.metrics import CONTEST, Metrics
from streamer.worker import challenging
from streamer.worker.batch import Batch, Pending, progress
from streamer.worker.challenging import Contest
from streamer.worker.outgoing import Outgoing
from tests.unit.core.groups import settings, step, visits
from tests.unit.state.made import batches

SMALL = ["model.dim=16"]
CONFIG = load(None, ["preset=deepwalk", "challenger.preset=walkstream", *SMALL], {})
CHAMPION, OWN = CONFIG.engine_settings, challenger.settings(CONFIG)


def other(tiers: Tiers = ()) -> Settings:
    chosen = settings(attribute_slots=2, tiers=tiers)
    return replace(chosen, walks=WalkSettings(per_node=3, p=0.5))


def beside(rounds: int = 6, tiers: Tiers = ()) -> Engine:
    """An engine whose challenger has learned."""
    engine = Engine(settings(attribute_slots=2, tiers=tiers), partitions=2)
    engine.challenge(other(tiers), ChallengerSettings())
    for i in range(rounds):
        step(engine, visits(i, at=100 * i), [("i1", ["red"])] if i == 0 else [])
    return engine


@pytest.mark.parametrize("tiers", [(), ((1, 16), (45, 64))])
def test_after_a_clean_stop_it_goes_on_to_the_bit(
    store: Store, monkeypatch: pytest.MonkeyPatch, tiers: Tiers
) -> None:
    monkeypatch.setattr(challenging, "PART", 7)
    engine = beside(tiers=tiers)
    was = engine.challenger
    assert was is not None
    was.test.add(16, 9, 2)
    store.write_entries({"meta": challenging.packed(was, engine.settings, 40)})
    again = Engine(settings(attribute_slots=2, tiers=tiers), partitions=2)
    for i in range(6):
        step(again, visits(i, at=100 * i), [("i1", ["red"])] if i == 0 else [])
    one = again.challenge(other(tiers), ChallengerSettings())
    assert not np.array_equal(one.model.rows.v, was.model.rows.v)
    head = challenging.stored(store, other(tiers), again.settings, 40)
    assert head is not None
    assert challenging.restore(store, one, head)
    for i in range(6, 9):
        for each in (engine, again):
            step(each, visits(i, at=100 * i))
    for name in ("v", "u", "acc_v", "acc_u", "mix", "attrs"):
        assert np.array_equal(getattr(one.model.rows, name), getattr(was.model.rows, name))
    for name in ("updates", "dims"):
        column = getattr(one.model.columns, name)
        assert np.array_equal(column, getattr(was.model.columns, name))
    assert bool(one.model.columns.dims.any()) == bool(tiers)
    assert (one.test.wins, one.test.losses) == (was.test.wins, was.test.losses)
    assert one.test.evidence == was.test.evidence


def test_what_is_of_another_commit_or_of_other_settings_is_no_challenger(store: Store) -> None:
    engine = beside()
    assert engine.challenger is not None
    store.write_entries({"meta": challenging.packed(engine.challenger, engine.settings, 40)})
    champion, stored = engine.settings, challenging.stored
    assert stored(store, other(), champion, 41) is None
    assert stored(store, other(), replace(champion, walks=WalkSettings(per_node=9)), 40) is None
    assert stored(store, replace(other(), walks=WalkSettings(per_node=4)), champion, 40) is None
    head = stored(store, other(), champion, 40)
    assert head is not None
    one = engine.challenge(other(), ChallengerSettings())
    step(engine, [("u", "fresh", 5000), ("u", "i3", 5000)])
    assert not challenging.restore(store, one, head)


def promoted(champion: Settings = CHAMPION, own: Settings | None = OWN) -> Promoted:
    assert own is not None
    return Promoted(7, challenging.digest(champion), challenging.digest(own), 0, 90, 40, 0.8)


RECORD = msgspec.msgpack.encode(promoted())


def test_its_settings_hold_while_the_configuration_names_the_two(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert challenging.in_force(CONFIG, None) == CHAMPION
    assert challenging.in_force(CONFIG, promoted()) == OWN
    with caplog.at_level("INFO"):
        challenging.tell(CONFIG, None)
        assert caplog.text == ""
        challenging.tell(CONFIG, promoted())
    assert "took over with commit 7" in caplog.text


@pytest.mark.parametrize(
    "overrides",
    [
        ["preset=deepwalk"],
        ["preset=deepwalk", "challenger.preset=word2vec"],
        ["preset=node2vec", "challenger.preset=walkstream"],
    ],
)
def test_other_settings_make_the_record_void_and_say_so(
    overrides: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = load(None, [*overrides, *SMALL], {})
    assert challenging.in_force(config, promoted()) == config.engine_settings
    challenging.tell(config, promoted())
    assert "learning goes on by the settings as they are" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "fits"),
    [
        (["preset=deepwalk", "challenger.preset=walkstream"], True),
        (["preset=walkstream"], True),
        (["preset=deepwalk"], False),
        (["preset=deepwalk", "challenger.preset=word2vec"], False),
        (["preset=node2vec", "challenger.preset=walkstream"], False),
    ],
)
def test_beside_workers_of_its_settings_none_learns_by_others(
    overrides: list[str], fits: bool
) -> None:
    config = load(None, [*overrides, *SMALL], {})
    assert challenging.unlike(config, None) == ""
    told = challenging.unlike(config, promoted())
    assert (told == "") == fits
    assert fits or "took over with commit 7, and this one would learn by others" in told
    settings = challenging.in_force(config, promoted())
    assert challenging.is_void(settings, promoted()) != fits


def test_a_void_record_is_replaced_with_the_first_commit_of_who_leads(store: Store) -> None:
    engine = Engine(CHAMPION)
    config = load(None, ["preset=deepwalk", *SMALL], {})
    store.set_meta({records.PROMOTED: RECORD})
    outgoing = Outgoing(config, store, engine, lambda: 7, 0, {})
    values = []
    for number, leads in enumerate([False, True, True], 8):
        outgoing.lead(leads)
        assert outgoing.has_work == (number == 9)
        values.append(outgoing.batch(number, step(engine, []), Pending(), {}, {}).promoted)
    assert values[0] is values[2] is None
    assert values[1] is not None
    found = msgspec.msgpack.decode(values[1], type=Promoted)
    assert (found.commit, found.champion, found.challenger) == (
        9, challenging.digest(CHAMPION), challenging.digest(CHAMPION),
    )  # fmt: skip
    assert records.promoted(values[1]) is None


def test_once_its_settings_are_the_main_ones_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = load(None, ["preset=walkstream", *SMALL], {})
    assert challenging.in_force(config, promoted()) == OWN
    with caplog.at_level("INFO"):
        challenging.tell(config, promoted())
    assert caplog.text == ""
    found = msgspec.structs.replace(promoted(), versions={0: 5})
    space = Space.of(CHAMPION, 2)
    assert challenging.outdated(config.engine_settings, found, space) == {0: 5}
    assert challenging.outdated(CHAMPION, found, space) == {}


def test_what_is_older_than_the_space_is_outdated_whatever_the_settings() -> None:
    space = msgspec.structs.replace(Space.of(CHAMPION, 2), since=9)
    assert challenging.outdated(CHAMPION, None, space) == {0: 8, 1: 8}
    assert challenging.outdated(CHAMPION, promoted(), space) == {0: 8, 1: 8}
    assert OWN is not None
    later = msgspec.structs.replace(promoted(), versions={0: 30, 1: 3})
    assert challenging.outdated(OWN, later, space) == {0: 30, 1: 8}


def test_a_space_that_began_later_has_another_name_and_the_same_settings() -> None:
    first = Space.of(CHAMPION, 2)
    later = [msgspec.structs.replace(first, since=since) for since in (9, 10)]
    assert len({first.name, *(space.name for space in later)}) == 3
    assert [space.least for space in (first, *later)] == [1, 9, 10]
    for space in later:
        space.check(first, "here")
    # As it was before there were others.
    values = [FORMAT, *(getattr(first, name) for name in records._COMPARED)]
    packed = hashlib.blake2b(msgspec.msgpack.encode(values), digest_size=4).hexdigest()
    assert first.name == f"d16-{packed}"


def test_the_record_is_known_as_one_of_ours() -> None:
    assert is_ours(records.PROMOTED, RECORD)
    assert order(records.PROMOTED, RECORD) == 7
    assert records.promoted(RECORD) == promoted()
    assert records.promoted(None) is None
    assert not is_ours(records.PROMOTED, b"\x01")


def state(metrics: Metrics) -> list[str]:
    return [one for one in CONTEST if metrics.challenger_state.labels(one)._value.get() == 1]


def test_it_learns_where_one_worker_has_everything_and_rests_beside_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, engine = Metrics(CollectorRegistry()), Engine(CHAMPION)
    contest = Contest(CONFIG, store, engine, metrics)
    assert state(metrics) == ["off"]
    contest.follow(False, 0)
    contest.follow(False, 0)
    assert engine.challenger is None
    assert state(metrics) == ["resting"]
    assert caplog.text.count("the challenger rests beside other workers") == 1
    contest.follow(True, 0)
    assert engine.challenger is not None
    assert engine.challenger.settings == OWN
    assert state(metrics) == ["learning"]
    began = engine.challenger
    contest.follow(True, 0)
    assert engine.challenger is began


def test_its_test_goes_on_after_a_rest(store: Store) -> None:
    engine = Engine(CHAMPION)
    contest = Contest(CONFIG, store, engine, Metrics(CollectorRegistry()))
    contest.follow(True, 0)
    assert engine.challenger is not None
    test = engine.challenger.test
    test.add(16, 9, 2)
    contest.follow(False, 0)
    contest.follow(False, 0)
    assert engine.challenger is None
    contest.follow(True, 0)
    assert engine.challenger is not None
    assert engine.challenger.test is test


def kept(store: Store) -> list[bytes]:
    return [key for key, _ in store.scan("meta", challenging.KEY)]


def test_the_folder_has_one_as_long_as_it_may_come_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(challenging, "PART", 7)
    engine = Engine(CHAMPION)
    contest = Contest(CONFIG, store, engine, Metrics(CollectorRegistry()))
    contest.follow(True, 0)
    step(engine, visits(1, at=0))
    contest.save(40)
    assert len(kept(store)) == 1 + -(-len(engine.items) // 7)
    monkeypatch.setattr(challenging, "PART", 1000)
    contest.save(41)
    assert kept(store) == [challenging.KEY, challenging.KEY + b"/0"]
    engine.rest()
    contest.follow(True, 41)
    assert kept(store) == []
    contest.save(42)
    Contest(load(None, SMALL, {}), store, Engine(CHAMPION), Metrics(CollectorRegistry())).follow(
        True, 42
    )
    assert kept(store) == []


@pytest.mark.parametrize("is_new_space", [False, True])
def test_that_a_new_space_begins_is_told(
    store: Store, caplog: pytest.LogCaptureFixture, is_new_space: bool
) -> None:
    metrics, engine = Metrics(CollectorRegistry()), Engine(CHAMPION)
    contest = Contest(CONFIG, store, engine, metrics)
    contest.follow(True, 0)
    changes = step(engine, visits(1, at=0))
    contest.closing(replace(changes, promotion=Promotion(1, 90, 40, 0.21, is_new_space)))
    assert caplog.text.count("turned onto the champion's: 0.21") == 1
    assert caplog.text.count("and a new space begins") == is_new_space


def test_that_it_takes_over_is_told_with_the_evidence_that_it_was_by(store: Store) -> None:
    registry, engine = CollectorRegistry(), Engine(CHAMPION)
    contest = Contest(CONFIG, store, engine, Metrics(registry))
    contest.follow(True, 0)
    changes = step(engine, visits(1, at=0))
    engine.rest()
    contest.closing(replace(changes, promotion=Promotion(1, 90, 40, 0.21, False, 25.0)))
    assert registry.get_sample_value("walkstream_challenger_evidence") == 25.0


def test_without_the_section_nothing_begins(store: Store) -> None:
    metrics, engine = Metrics(CollectorRegistry()), Engine(CHAMPION)
    contest = Contest(load(None, ["preset=deepwalk", *SMALL], {}), store, engine, metrics)
    contest.follow(True, 0)
    assert engine.challenger is None
    assert state(metrics) == ["off"]
    contest.save(3)
    assert store.meta(challenging.KEY) is None


def test_that_it_took_over_leaves_with_its_first_rows_and_whenever_all_is_written_again(
    store: Store,
) -> None:
    assert OWN is not None
    engine, (first, second, *rest) = Engine(CHAMPION), batches(4)
    challenger_ = engine.challenge(OWN, ChallengerSettings(promote=True, min_agreement=-1.0))
    outgoing = Outgoing(CONFIG, store, engine, lambda: 7, 0, {})

    def leave(number: int, inputs: Inputs) -> Batch:
        changes = engine.step(inputs).changes
        assert changes is not None
        return outgoing.batch(number, changes, Pending(), {}, {})

    assert records.PROMOTED not in progress(leave(1, Inputs(first)))
    for _ in range(10):
        challenger_.test.add(3, 3, 0)
    batch = leave(2, Inputs(second))
    value = progress(batch)[records.PROMOTED]
    found = msgspec.msgpack.decode(value, type=Promoted)
    assert found.commit == 2
    assert found.wins >= 30
    assert found.versions == {0: 1}
    assert batch.changes.promotion is not None
    assert len(batch.changes.keys) > 0
    assert challenging.in_force(CONFIG, records.promoted(value)) == OWN == engine.settings
    assert records.PROMOTED not in progress(leave(3, Inputs(rest[0])))
    store.set_meta({records.PROMOTED: value})
    outgoing.publish_all()
    assert progress(leave(4, Inputs(rest[1])))[records.PROMOTED] == value
