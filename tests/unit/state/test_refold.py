"""Which evidence counts at a start, and what is refused where some of it is missing."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Evidence, Inputs
from core.settings import AdmissionSettings
from streamer.errors import Refused
from streamer.kafka import clients
from streamer.settings import load as configs
from streamer.state import evidence, folded_by, records
from streamer.state import store as stores
from streamer.state.records import Marks
from streamer.state.store import Store
from streamer.worker import checkpoint, refold
from tests.property.test_fold import graph_of
from tests.unit.state.made import SETTINGS, batches

CONFIG = configs.load(None, [], {})


def test_commits_count_that_another_comes_after_and_the_newest() -> None:
    assert counted([(1, 0, "a"), (2, 1, "b"), (5, 2, "c")], until=5) == {1: "a", 2: "b", 5: "c"}


def test_the_newest_does_not_count_if_only_transitions_has_it() -> None:
    """The rest of it is not in `model-state`: it is torn, and its clicks are taken again."""
    assert counted([(1, 0, "a"), (2, 1, "b")], until=1) == {1: "a"}
    assert counted([(1, 0, "a"), (2, 1, "b"), (2, 2, "c")], until=1) == {1: "a"}


def test_a_torn_commit_that_no_other_names_is_left_out() -> None:
    assert counted([(1, 0, "a"), (2, 1, "torn"), (3, 1, "b")], until=3) == {1: "a", 3: "b"}
    twice = [(1, 0, "a"), (2, 1, "torn"), (2, 2, "torn"), (3, 1, "b"), (3, 3, "c"), (4, 3, "d")]
    assert counted(twice, until=4) == {1: "a", 3: "bc", 4: "d"}


def test_a_torn_commit_whose_number_is_used_again_is_left_out() -> None:
    again = [(1, 0, "a"), (2, 1, "torn"), (2, 2, "torn"), (2, 1, "b"), (2, 2, "c"), (3, 2, "d")]
    assert counted(again, until=3) == {1: "a", 2: "bc", 3: "d"}


def test_a_gap_leaves_what_stands_before_it_and_shows_by_the_commit_that_is_named() -> None:
    read = [
        evidence.Record(1, 0, [named("a")]),
        evidence.Record(5, 4, [named("b")]),
    ]
    assert [(one.commit, one.before) for one in refold.whole(read, 5)] == [(1, 0), (5, 4)]


def test_what_several_workers_wrote_counts_as_it_stands_and_is_numbered_on() -> None:
    """Whoever is alone again decides with a number behind all that is there."""
    none = evidence.UNDECIDED
    read = [(4, 0, "a"), (none, none, "b"), (none, none, "c"), (9, 6, "d"), (9, 9, "e")]
    assert counted(read, until=9) == {4: "a", 5: "b", 6: "c", 9: "de"}
    assert counted([*read, (none, none, "f")], until=4) == {
        4: "a",
        5: "b",
        6: "c",
        9: "de",
        10: "f",
    }
    assert counted(read, until=4) == {4: "a", 5: "b", 6: "c"}, "it is of a torn commit"


def counted(found: list[tuple[int, int, str]], until: int) -> dict[int, str]:
    """By commit, the names of its rounds that count, where each record has one round."""
    read = [evidence.Record(n, before, [named(name)]) for n, before, name in found]
    return {
        one.commit: "".join("".join(told.gone) for told in one.rounds)
        for one in refold.whole(read, until)
    }


def named(name: str) -> Evidence:
    return Evidence(1, {name: 1}, [], Clicks.empty(), {})


# -- from the folder -----------------------------------------------------------------------------


def nobody() -> AdminClient:
    return AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})


def restored(store: Store, accept_loss: bool = False) -> tuple[Engine, refold.Refolded]:
    engine = Engine(SETTINGS, 1)
    return engine, refold.restore(CONFIG, store, engine, nobody(), accept_loss, lambda share: None)


def test_without_the_folder_that_kafka_has_not_all_of_a_start_is_refused(store: Store) -> None:
    marks = Marks(6, 0, evidence=4, needs_folder=True)
    store.set_meta({records.MARKS: msgspec.msgpack.encode(marks)})
    with pytest.raises(Refused, match="state folder is gone, and Kafka did not have all of it"):
        restored(store)


def torn(store: Store) -> tuple[Engine, Evidence]:
    """A folder that has a commit of which `transitions` has nothing, and the engine of it."""
    engine = Engine(SETTINGS, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 4, 0)
    told = engine.step(Inputs(second)).evidence
    packed = list(evidence.pack(5, 4, [told]))
    store.set_meta({stores.EVIDENCE: msgspec.msgpack.encode(packed)})
    return engine, told


def test_the_evidence_of_a_torn_commit_comes_from_the_folder_and_leaves_again(
    store: Store,
) -> None:
    engine, told = torn(store)
    again = Engine(SETTINGS, 1)
    checkpoint.load(store, again)
    found = refold._of_folder(store, again, "transitions", 4, 5, False)
    assert found.last == 4, "what leaves next follows on what the topic has"
    ((commit, _, (one,), *_),) = found.again
    assert commit == 5, "rows that are folded as of it have it"
    assert (one.round_number, list(one.clicks.items)) == (2, list(told.clicks.items))
    assert again.graph.arcs == engine.graph.arcs
    assert again.round_number == engine.round_number


def test_what_ids_were_counted_by_must_be_known(store: Store) -> None:
    """Clicks came since ids are counted, and the only sweep that is left was before."""
    engine = Engine(SETTINGS, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 4, 0)
    counted = replace(SETTINGS, admission=AdmissionSettings(2))
    told = engine.step(Inputs(second)).evidence
    marks = Marks(5, 0, evidence=5, folds_by=folded_by.folds_by(counted, False))
    packed = list(evidence.pack(5, 4, [told]))
    found = [evidence.unpack(record) for record in packed]
    entries = {records.MARKS: marks, stores.EVIDENCE: packed}
    store.set_meta({key: msgspec.msgpack.encode(value) for key, value in entries.items()})
    for accepts in (False, True):
        again = Engine(counted, 1)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(refold, "_read", lambda *_: iter(found))
            patched.setattr(clients, "begins", lambda _, where: dict.fromkeys(where, 0))
            patched.setattr(clients, "ends", lambda _, where: dict.fromkeys(where, 1))
            told_of: Any = [CONFIG, store, again, nobody(), accepts, lambda share: None]
            if accepts:
                assert refold.restore(*told_of).last == 5
                again.load_rows([])
                assert again.catalogue.admission.settings == counted.admission_ms
            else:
                with pytest.raises(Refused, match=r"ids were counted by.*--accept-loss"):
                    refold.restore(*told_of)


@pytest.mark.parametrize("counts", [False, True])
def test_evidence_is_folded_again_as_it_was_whatever_is_asked_for_now(
    store: Store, counts: bool
) -> None:
    own, other = (replace(SETTINGS, admission=AdmissionSettings(n)) for n in (2, 1))
    if not counts:
        own, other = other, own
    engine = Engine(own, 1)
    first, second = batches(2)
    engine.step(Inputs(first))
    checkpoint.save(store, engine, 4, 0)
    told = engine.step(Inputs(second)).evidence
    marks = Marks(5, 0, folds_by=folded_by.folds_by(own, False))
    store.set_meta({records.MARKS: msgspec.msgpack.encode(marks)})
    again = Engine(other, 1)
    again.catalogue.count_by(folded_by.counted_by(store.marks))
    checkpoint.load(store, again)
    again.fold_again(told, 5)
    again.load_rows([])
    assert graph_of(again) == graph_of(engine)
    assert again.catalogue.admission.is_on != counts
    if not counts:
        assert again.catalogue.admission.admitted == len(again.items)


@pytest.mark.parametrize(("last", "wanted"), [(4, 6), (3, 5)])
def test_evidence_that_nobody_has_is_refused_unless_the_loss_is_accepted(
    store: Store, last: int, wanted: int
) -> None:
    """The folder has another commit, or one that does not follow on what was read."""
    torn(store)
    again = Engine(SETTINGS, 1)
    checkpoint.load(store, again)
    told = f"between commit {last} and commit {5 if wanted == 5 else 6} is gone"
    with pytest.raises(Refused, match=rf"transitions\[0\]: the evidence {told}.*--accept-loss"):
        refold._of_folder(store, again, "transitions", last, wanted, False)
    assert refold._of_folder(store, again, "transitions", last, wanted, True).last == last
