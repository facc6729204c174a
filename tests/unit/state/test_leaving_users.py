"""Which users are looked through, by which list, and what a folder remembers of that."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from core.users import Profiles
from streamer.admin import forget
from streamer.errors import ConfigError
from streamer.settings import load as configs
from streamer.state import records, users
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.state.users import Known
from streamer.worker.arrived import Arrived
from streamer.worker.batch import Pending
from streamer.worker.later import Later
from streamer.worker.outgoing import Outgoing
from streamer.worker.sequence import Commits
from streamer.worker.strangers import Strangers
from streamer.worker.tail import Tail
from streamer.worker.users import Users
from tests.unit.state.made import SETTINGS, batches

CONFIG = configs.load(None, ["user_vectors.kind=mean", "commit.max_records=20000"], {})
CLICKS = CONFIG.topics.clicks
PARTITIONS = 3
SPACE = Space.of(SETTINGS, 1)
NO_ROWS = np.zeros((0, 16), np.float32)
NOTHING = Profiles(np.zeros(2, np.int64), np.zeros(0, np.int64), np.zeros(0), NO_ROWS, NO_ROWS)


def kept(store: Store, names: dict[str, int]) -> None:
    """Let the folder have these users, each of a partition of the clicks."""
    for name, partition in names.items():
        (value,) = users.packed([Known(name, 0, partition, [])], NOTHING, [], "s", "json")
        store.write_entries({users.FAMILY: users.entries(store, {name.encode(): value})})


class Case:
    """A worker's users, from a folder, its share, and the list."""

    def __init__(
        self, store: Store, held: list[int], forgotten: list[str], since: int = 0
    ) -> None:  # fmt: skip
        self.store, self.held = store, {(CLICKS, p) for p in held}
        keys = (forget.key(CONFIG.app.name, user) for user in forgotten)
        self.listed = SimpleNamespace(forgotten=frozenset(keys))
        self.engine = Engine(SETTINGS, 1)
        self.engine.leaving.space_from = since
        self.users = Users(
            CONFIG, store, self.engine, cast(Tail, self.listed), lambda: self.held, PARTITIONS,
            msgspec.structs.replace(SPACE, since=since),
        )  # fmt: skip

    def commits(self) -> dict[bytes, bytes | None]:
        """What leaves until nothing is left to be looked at, as the folder gets it."""
        out: dict[bytes, bytes | None] = {}
        for _ in range(10):
            if not self.users.is_looking:
                return out
            leaving = self.users.leave(0, True)
            self.store.write_entries({users.FAMILY: users.entries(self.store, leaving.records)})
            if leaving.looked is not None:
                self.store.set_meta({users.LOOKED: leaving.looked})
            out |= leaving.records
        raise AssertionError("it looks for ever")


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with Store(tmp_path / "state") as store:
        kept(store, {"a0": 0, "b0": 0, "a1": 1, "b1": 1, "a7": 7})
        yield store


def test_who_is_forgotten_leaves_with_the_partition_that_came_from_another(folder: Store) -> None:
    case = Case(folder, [1], ["a0", "a1", "a7"])
    assert case.commits() == {b"a1": None}
    case.held |= {(CLICKS, 0)}
    # Those of a partition that is no more are with the first one's.
    assert case.commits() == {b"a0": None, b"a7": None}
    case.listed.forgotten |= {forget.key(CONFIG.app.name, "b1")}
    assert case.commits() == {b"b1": None}


def test_a_partition_that_left_and_came_back_is_looked_through_again(folder: Store) -> None:
    case = Case(folder, [0, 1], ["a1"])
    assert case.commits() == {b"a1": None}
    case.held -= {(CLICKS, 1)}
    case.users.leave(0, True)
    kept(folder, {"a1": 1})  # who has it in between did not know the list yet
    case.held |= {(CLICKS, 1)}
    assert case.commits() == {b"a1": None}


def test_a_start_looks_at_nobody_again_unless_list_or_share_are_others(folder: Store) -> None:
    Case(folder, [0, 1], ["a0"]).commits()
    assert not Case(folder, [0, 1], ["a0"]).users.is_looking
    assert not Case(folder, [0], ["a0"]).users.is_looking
    assert not Case(folder, [0, 1], []).users.is_looking
    assert Case(folder, [0, 1, 2], ["a0"]).users.is_looking
    assert Case(folder, [0, 1], ["a0", "b0"]).users.is_looking
    assert Case(folder, [0, 1], ["b0"]).users.is_looking


def test_a_look_that_was_not_over_is_begun_again_by_a_start(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.worker.users.LOOKED", 2)
    leaving = Case(folder, [0, 1], ["b1"]).users.leave(0, True)
    assert leaving == ({}, None)
    assert Case(folder, [0, 1], ["b1"]).commits() == {b"b1": None}


def test_all_leave_once_more_and_only_once_where_the_list_changes_meanwhile(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.worker.users.LOOKED", 2)
    case = Case(folder, [0, 1, 2], [])
    case.users.publish_all()
    sent = [*case.users.leave(0, False).records]
    case.listed.forgotten |= {forget.key(CONFIG.app.name, "b1")}
    while case.users.publishes_all:
        records = case.users.leave(0, False).records
        assert len(records) <= 2
        sent += records
        assert records.get(b"b1") is None
    assert sorted(sent) == [b"a0", b"a1", b"a7", b"b0", b"b1"]


def test_in_a_new_space_all_leave_once_more_and_a_start_knows_it(
    folder: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.worker.users.LOOKED", 2)
    first = Case(folder, [0, 1], ["b1"], since=7)
    out = first.commits()
    assert out.pop(b"b1") is None
    assert out.keys() == {b"a0", b"b0", b"a1", b"a7"}  # of a partition that is no more, too
    spaces = {users.read(value).space for value in out.values() if value is not None}
    assert spaces == {first.users.space.name}
    assert first.users.space.name != SPACE.name
    assert Case(folder, [0, 1], ["b1"], since=7).commits() == {}
    assert Case(folder, [1], [], since=7).commits() == {}
    # In the next one all do again, with what came from others.
    assert Case(folder, [1], [], since=9).commits().keys() == {b"a1"}
    assert Case(folder, [0, 1], [], since=9).commits().keys() == {b"a0", b"b0", b"a7"}


def test_users_wait_until_their_items_are_known_in_a_new_space(folder: Store) -> None:
    case = Case(folder, [0, 1], [], since=100)
    engine = case.engine
    for clicks in islice(batches(3), 3):
        engine.step(Inputs(clicks, room=1000, budget=1000))
    assert (engine.model.columns.published[engine.items] > 0).any()
    engine.starts.behind = engine.items.copy()
    assert not case.users.is_looking
    assert case.users.leave(0, True).records == {}
    names = engine.vocabulary.names(engine.items[:3])
    clicked = Clicks(["new"] * 3, names, np.arange(3), np.ones(3, np.float32))
    case.users.add(replace(clicked, partitions=np.zeros(3, np.int64)))
    early = case.users.leave(0, True).records
    assert vectors_in(early) == {b"new": 0}
    folder.write_entries({users.FAMILY: users.entries(folder, early)})
    engine.starts.behind = engine.items[:0]
    assert vectors_in(case.commits()) == {
        b"new": 1,
        b"a0": 0,
        b"b0": 0,
        b"a1": 0,
        b"b1": 0,
        b"a7": 0,
    }
    assert case.commits() == {}


def vectors_in(records: dict[bytes, bytes | None]) -> dict[bytes, int]:
    return {key: len(users.read(value).vectors) for key, value in records.items() if value}


def test_a_repair_lasts_for_others_until_all_users_have_left(store: Store) -> None:
    engine = Engine(SETTINGS, 1)
    changes = engine.step(Inputs(next(iter(batches(1))), room=1000, budget=1000)).changes
    assert changes is not None
    outgoing = Outgoing(CONFIG, store, engine, lambda: 7, 1, {})
    for publishes in True, False:
        outgoing.publishes_users = partial(bool, publishes)
        marks = outgoing.batch(2, changes, Pending(), {}, {}).marks
        assert marks is not None
        assert marks.needs_folder == publishes


def test_a_record_of_a_user_fits_into_what_brokers_take() -> None:
    wide = ["user_vectors.kind=interests", "model.dim=1024", "user_vectors.items=200"]
    with pytest.raises(ConfigError, match=r"user_vectors.interests: must be at most 10"):
        configs.load(None, [*wide, "user_vectors.interests=11"], {})
    config = configs.load(None, [*wide, "user_vectors.interests=10"], {})
    worst = "\x01" * 512
    history = [users.Clicked(worst, 123456.12345678912, 10**14)] * 200
    known = Known(worst, 10**14, 10, history, ["f" * 16] * 64)
    n, d = config.user_vectors.interests, config.model.dim
    rows = np.full((n, d), -0.123456, np.float32)
    profiles = Profiles(np.array([0, n]), np.zeros(n, np.int64), np.ones(n), rows, rows)
    (value,) = users.packed([known], profiles, [worst] * n, "d1024-00000000", "json")
    assert 850_000 < len(value) < 950_000


def test_a_commit_has_room_for_the_users_of_one_record() -> None:
    with pytest.raises(ConfigError, match=r"commit.max_records: must be at least 20000"):
        configs.load(None, ["user_vectors.kind=mean", "commit.max_records=19999"], {})
    configs.load(None, ["commit.max_records=4000"], {})


@pytest.mark.parametrize(
    ("told", "left"),
    [
        ({}, None),
        ({b"a": b"\x01", b"c": None}, None),
        ({b"b": b"\x01"}, {b"a", b"b"}),
        ({b"a": None, b"b": b"\x01"}, {b"b"}),
        ({b"a": None}, set()),
    ],
)
def test_the_list_is_the_same_object_for_as_long_as_it_says_the_same(
    store: Store, told: dict[bytes, bytes | None], left: set[bytes] | None
) -> None:
    arrived = Arrived(CONFIG, store, Commits("", "0"), Strangers(), Later(store))
    arrived.meta = {records.FORGOTTEN + key: value for key, value in told.items()}
    arrived.meta[records.MAJOR] = b"\x01"
    listed = frozenset({records.FORGOTTEN + b"a"})
    found = arrived.forgotten_after(listed)
    if left is None:
        assert found is listed
    else:
        assert found == {records.FORGOTTEN + key for key in left}
