"""`walkstream cluster` beside workers that come, commit and go."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from streamer import cli
from streamer.inspect import holders
from streamer.watch import log
from tests.integration.models import CLICKS, SETTINGS
from tests.support import App, Process, wait_until


class Asked:
    """The command, as somebody runs it in this process."""

    def __init__(self, app: App, capfd: pytest.CaptureFixture[str]) -> None:
        self.app, self.capfd = app, capfd

    def run(self, *options: str, **changed: object) -> tuple[int, str, str]:
        """Exit code and both streams."""
        given = {**self.app.settings, **{k.replace("__", "."): v for k, v in changed.items()}}
        settings = [f"--set={key}={value}" for key, value in given.items()]
        self.capfd.readouterr()
        try:
            cli.app(["cluster", *options, *settings], prog_name="walkstream", standalone_mode=False)
            code = 0
        except Exception as error:
            code = log.end(error)
        return code, *self.capfd.readouterr()

    def json(self) -> dict[str, Any]:
        code, out, _ = self.run("--json")
        assert code == 0
        told: dict[str, Any] = json.loads(out)
        return told

    def text(self, *options: str) -> str:
        code, out, _ = self.run(*options)
        assert code == 0
        return out


@pytest.fixture
def app(kafka: str, tmp_path: Path) -> Iterator[App]:
    with App(kafka, tmp_path, SETTINGS | {"topics.partitions": 4}) as app:
        yield app


@pytest.fixture
def asked(app: App, capfd: pytest.CaptureFixture[str]) -> Asked:
    return Asked(app, capfd)


def worker(app: App, name: str) -> Process:
    return app.worker(app__instance=name, state__dir=app.folder / name)


def by_instance(told: dict[str, Any]) -> dict[str, Any]:
    return {member["instance"]: member for member in told["members"]}


def test_two_workers_share_all_there_is_and_one_that_was_killed_is_told_as_gone(
    app: App, asked: Asked
) -> None:
    names = app.config.topics
    first, second = worker(app, "a").running(), worker(app, "b").running()

    def shared() -> bool:
        there = by_instance(asked.json())
        return all(len(there[name]["clicks"]) == 2 for name in "ab" if name in there) and (
            there.keys() == {"a", "b"}
        )

    wait_until(shared, "two partitions each")
    app.publish(CLICKS[:400])
    for one in first, second:
        one.until(app.caught_up, "all clicks committed")
    wait_until(lambda: all(m["commit"] for m in asked.json()["members"]), "a commit of each")
    wait_until(lambda: asked.json()["cut"] is not None, "a sweep that is over")

    told = asked.json()
    assert (told["app"], told["state"], told["protocol"]) == (app.name, "stable", "classic")
    there = by_instance(told)
    assert there["a"]["name"] == f"{app.name}-a"
    assert there["a"]["host"] == "127.0.0.1"
    assert sorted(there["a"]["clicks"] + there["b"]["clicks"]) == [0, 1, 2, 3]
    for member in told["members"]:
        # As many partitions of the items as of the clicks: each goes with one.
        assert member["items"] == member["clicks"]
        assert member["leads"] == (0 in member["clicks"])
        assert member["behind"] == 0
        assert 0 <= member["age_seconds"] < 60
    assert (told["unheld"], told["gone"]) == ([], [])
    assert 0 <= told["cut"]["evidence"] <= sum(app.ends(names.transitions).values())
    assert 0 <= told["cut"]["age_seconds"] < 60
    ends = app.ends(names.clicks)
    assert [(one["offset"], one["end"], one["behind"]) for one in told["clicks"]] == [
        (ends[names.clicks, p], ends[names.clicks, p], 0) for p in range(4)
    ]
    holder = {one["partition"]: one["holder"] for one in told["clicks"]}
    assert {p: one["owner"] for p, one in enumerate(told["items"])} == holder
    assert all(one["version"] > 0 for one in told["items"])

    text = asked.text()
    assert f"group {app.name}: stable, 2 members, classic protocol" in text
    rows = [line.split() for line in text.splitlines()]
    for member in told["members"]:
        name = [member["instance"], *["(leads)"] * member["leads"]]
        assert any(row[: len(name) + 1] == [*name, "127.0.0.1"] for row in rows), text
    assert "nobody" not in text
    text = asked.text("--partitions")
    for p in range(4):
        assert f"{names.clicks}[{p}]" in text
        assert f"{names.model_state}[{p}]" in text

    second.kill()
    wait_until(lambda: by_instance(asked.json()).keys() == {"a"}, "b is no member any more")
    wait_until(lambda: by_instance(asked.json())["a"]["clicks"] == [0, 1, 2, 3], "a has all")
    told = asked.json()
    [gone] = told["gone"]
    assert (gone["instance"], gone["app"]) == ("b", app.name)
    assert gone["commit"] >= there["b"]["commit"]
    assert gone["age_seconds"] >= 6
    assert told["unheld"] == []
    assert "committed once, and no members now: b (commit " in asked.text()

    first.stop()
    wait_until(lambda: not asked.json()["members"], "nobody is left")
    app.publish(CLICKS[400:500])
    told = asked.json()
    assert told["state"] in ("empty", "dead")
    assert told["unheld"] == [0, 1, 2, 3]
    assert sum(one["behind"] for one in told["clicks"]) == 100
    assert {one["instance"] for one in told["gone"]} == {"a", "b"}
    text = asked.text("--partitions")
    assert "no worker is in the group: no click is learned" in text
    assert text.count("nobody") == 8


def test_a_member_without_a_partition_stands_by(
    kafka: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with App(kafka, tmp_path, SETTINGS | {"topics.partitions": 1}) as small:
        asked = Asked(small, capfd)
        worker(small, "a").running()
        worker(small, "b")
        wait_until(lambda: len(asked.json()["members"]) == 2, "both are members")
        wait_until(lambda: asked.json()["state"] == "stable", "who has what")
        told = asked.json()
        assert [member["clicks"] for member in told["members"]] == [[0], []]
        assert [member["leads"] for member in told["members"]] == [True, False]
        assert told["unheld"] == []
        assert "stands by" in asked.text()


def test_a_group_whose_brokers_share_out_the_partitions_says_as_much(
    kafka: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"topics.partitions": 2, "kafka.group.protocol": "consumer"}
    with App(kafka, tmp_path, SETTINGS | settings) as app:
        asked = Asked(app, capfd)
        worker(app, "a").running()
        wait_until(lambda: asked.json()["unheld"] == [], "all partitions held")
        told = asked.json()
        assert (told["state"], told["protocol"]) == ("stable", "consumer")
        [only] = told["members"]
        assert (only["instance"], only["clicks"], only["items"]) == ("a", [0, 1], [0, 1])
        assert "stable, 1 member, consumer protocol" in asked.text()


def test_what_is_no_model_is_refused(
    app: App, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = asked.run()
    assert (code, out) == (3, "")
    assert "has no model yet: start a worker" in err
    code, out, err = asked.run(topics__model_state=f"{app.name}-none")
    assert (code, out) == (3, "")
    assert f"topics ['{app.name}-none'] do not exist" in err
    app.publish(CLICKS[:200])
    app.run_to_end()
    code, _, err = asked.run(app__name="other")
    assert code == 3
    assert f"is the model of app '{app.name}', and app.name is 'other'" in err
    # What is looked for is found however far it is from the end, and whatever strangers write.
    topic = app.config.topics.model_state
    stranger = Producer({"bootstrap.servers": app.servers})
    for n in range(200):
        stranger.produce(topic, b"v", f"item-{n % 5}".encode(), partition=n % 4)
    stranger.produce(topic, b"garbage", b"\xffversion/1", partition=1)
    assert stranger.flush(30) == 0
    told = asked.json()
    monkeypatch.setattr(holders, "WINDOW", 1)
    assert asked.json()["items"] == told["items"]
    assert all(one["version"] > 0 for one in told["items"])
    assert all(one["offset"] is not None for one in told["clicks"])
