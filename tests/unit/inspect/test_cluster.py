"""What follows from a group and from the reserved records of `model-state`."""

import msgspec
import pytest
from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupType,
    Message,
    Node,
    TopicPartition,
)
from confluent_kafka.admin import ConsumerGroupDescription, MemberAssignment, MemberDescription

from core.settings import Settings
from streamer.inspect import cluster, holders
from streamer.inspect.holders import Cluster, Cut, Found, Gone
from streamer.settings.sections import AppSettings, Config
from streamer.state import records
from streamer.state.commits import Manifest
from streamer.state.records import Progress, Space, Swept

NOW_MS = 1_700_000_000_000
CONFIG = Config(app=AppSettings(name="shop"))


def record(what: object, seconds_ago: float = 0.0) -> Message:
    stamp = 1, int(NOW_MS - 1000 * seconds_ago)
    return Message(value=msgspec.msgpack.encode(what), timestamp=stamp)


def member(name: str, clicks: list[int], is_static: bool = True) -> MemberDescription:
    held = MemberAssignment([TopicPartition("clicks", partition) for partition in clicks])
    host = "/10.0.0.7"
    if is_static:
        return MemberDescription(f"{name}-id", "client", host, held, name)
    return MemberDescription(name, "client", host, held)


def told(
    members: list[MemberDescription],
    reserved: dict[bytes, Message],
    clicks: int = 2,
    items: int = 2,
    state: ConsumerGroupState = ConsumerGroupState.STABLE,
) -> Cluster:
    """Each partition of the clicks has the records 10 to 99."""
    group = ConsumerGroupDescription(
        "shop", False, members, "cooperative-sticky", state, Node(1, "h", 1),
        type=ConsumerGroupType.CLASSIC,
    )  # fmt: skip
    bounds = {("clicks", partition): (10, 100) for partition in range(clicks)}
    found = Found(Space.of(Settings(), items), reserved, bounds, evidence=500)
    return holders.examine(CONFIG, group, found, NOW_MS / 1000)


@pytest.mark.parametrize(
    ("clicks", "items", "owned"),
    [
        (4, 4, [0, 1]),
        (4, 8, [0, 1, 2, 3]),
        (8, 4, [0]),
        (3, 8, [0, 1, 2, 3, 4, 5]),
        (2, 1, [0]),
    ],
)
def test_partitions_of_the_items_go_with_those_of_the_clicks(
    clicks: int, items: int, owned: list[int]
) -> None:
    found = told(
        [member("shop-a", [0, 1]), member("shop-b", [*range(2, clicks)])], {}, clicks, items
    )
    first, second = found.members
    assert first.items == owned
    assert second.items == [*range(len(owned), items)]
    assert [one.owner for one in found.items] == [
        "shop-a" if partition in owned else "shop-b" for partition in range(items)
    ]


def test_what_is_behind_is_what_no_commit_has() -> None:
    found = told(
        [member("shop-a", [0, 1])],
        {
            records.progress_key("clicks", 0): record(Progress(98, 0, 7, 3)),
            # Of a topic that held the clicks before.
            records.progress_key("views", 1): record(Progress(98, 0, 7, 3)),
        },
    )
    assert [(one.offset, one.behind) for one in found.clicks] == [(98, 2), (None, 90)]
    assert found.members[0].behind == 92


def test_a_commit_is_told_with_its_age_at_whose_it_is_and_of_who_is_gone() -> None:
    found = told(
        [member("shop-b", [1]), member("shop-a", [0]), member("shop-new", [])],
        {
            records.manifest_key("a"): record(Manifest(41, "shop", "a", {}), 2.5),
            records.manifest_key("b"): record(Manifest(40, "shop", "b", {}), -3),
            records.manifest_key("c"): record(Manifest(12, "shop", "c", {}), 7200),
            # The name of the app before the model was handed over: no commit of this member.
            records.manifest_key("new"): record(Manifest(9, "old", "new", {}), 90_000),
            records.SWEPT: record(Swept(33, 440, 0, 0, 1, [], 5, 0, 1), 61),
        },
    )
    assert [(one.instance, one.commit, one.age_seconds) for one in found.members] == [
        ("a", 41, 2.5), ("b", 40, 0.0), ("new", None, None),
    ]  # fmt: skip
    assert [one.leads for one in found.members] == [True, False, False]
    assert found.gone == [Gone("c", "shop", 12, 7200), Gone("new", "old", 9, 90_000)]
    assert found.cut == Cut(33, 61, 60)


def shown(found: Cluster, capsys: pytest.CaptureFixture[str], partitions: bool = False) -> str:
    cluster.show(found, CONFIG, partitions)
    return capsys.readouterr().out


def test_what_nobody_holds_is_told_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    found = told([member("shop-a", [1])], {}, clicks=4, items=4)
    assert found.unheld == [0, 2, 3]
    out = shown(found, capsys)
    assert "! nobody holds 3 partitions of clicks (0, 2-3)" in out
    assert "nobody" in shown(found, capsys, partitions=True)
    assert "! no worker is in the group" in shown(told([], {}), capsys)
    held = told([member("shop-a", [0, 1])], {})
    assert "!" not in shown(held, capsys, partitions=True)


def test_of_many_that_are_gone_the_last_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    gone = {
        records.manifest_key(f"c{n}"): record(Manifest(n, "shop", f"c{n}", {}), 60 * n)
        for n in range(11)
    }
    out = " ".join(shown(told([member("shop-a", [0, 1])], gone), capsys).split())
    assert "no members now: c0 (commit 0, 0 s ago), c1 (commit 1, 60 s ago)," in out
    assert "c7 (commit 7, 7 min ago) and 3 more, which --json lists" in out
    assert "c8" not in out


def test_a_group_that_shares_out_its_partitions_is_not_said_to_hold_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = ConsumerGroupState.PREPARING_REBALANCING
    out = shown(told([member("shop-a", [])], {}, state=state), capsys)
    assert "group shop: preparing rebalancing, 1 member" in out
    assert "look again in a moment" in out
    assert "nobody" not in out
    assert "stands by" not in out


def test_a_member_that_is_no_worker_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A program with the group id of the app takes partitions from its workers."""
    for other in member("rdkafka-1[x]", [1], is_static=False), member("cart-0", [1]):
        found = told([member("shop-a", [0]), other], {})
        assert [one.instance for one in found.members] == ["a", None]
        name = found.members[1].name
        assert f"! {name} is no worker of this app" in shown(found, capsys)


def test_names_from_outside_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    gone = {records.manifest_key("[blue]"): record(Manifest(2, "shop", "[blue]", {}))}
    out = shown(told([member("shop-[red]", [0, 1])], gone), capsys, partitions=True)
    assert out.count("[red]") == 5
    assert "[blue]" in out
