"""What a test knows of users: their histories by the definition, and what topic and folder have."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message

from streamer.state import users
from streamer.state.store import Store
from streamer.state.users import FAMILY, RECORD, SEEN, Read

History = list[tuple[str, float, int]]


def histories(
    clicks: Iterable[Mapping[str, Any]], weights: Mapping[str, float], half_life: int, most: int
) -> dict[str, History]:
    """By the definition: each item with the weight of its clicks as of the last of them, the `most`
    whose last clicks are newest; and a click whose event id was among the last eight is none. The
    clicks of a user are in the order of the log; `half_life` is in ms."""
    out: dict[str, History] = {}
    ids: dict[str, list[str]] = {}
    for click in clicks:
        user, item, ts = str(click["user_id"]), str(click["item_id"]), int(click["ts"])
        seen = ids.setdefault(user, [])
        if "event_id" in click:
            if click["event_id"] in seen[-8:]:
                continue
            seen.append(click["event_id"])
        weight = weights[click.get("event_type", "click")]
        mine = out.setdefault(user, [])
        for at, (name, total, last) in enumerate(mine):
            if name == item:
                weight += total * 0.5 ** ((ts - last) / half_life)
                del mine[at]
                break
        mine.append((item, weight, ts))
        del mine[:-most]
    return out


def last_of(messages: list[Message]) -> dict[bytes, bytes]:
    """What compaction leaves, deletions carried out."""
    found = {message.key() or b"": message.value() for message in messages}
    return {key: value for key, value in found.items() if value is not None}


def of_folder(path: Path) -> dict[bytes, bytes]:
    """The records of a folder by user, whose index by time is whole."""
    with Store(path) as store:
        found = {key[1:]: value for key, value in store.scan(FAMILY, RECORD)}
        seen = [users.seen_of(key) for key, _ in store.scan(FAMILY, SEEN)]
    assert sorted(seen) == sorted((users.known(value).ts, user) for user, value in found.items())
    return found


def assert_histories(found: dict[bytes, bytes], wanted: dict[str, History]) -> dict[str, Read]:
    read = {user.decode(): users.read(value) for user, value in found.items()}
    assert read.keys() == wanted.keys()
    for user, record in read.items():
        got = [(one.item, one.weight, one.time) for one in record.history]
        assert [one[0::2] for one in got] == [one[0::2] for one in wanted[user]]
        assert [one[1] for one in got] == pytest.approx([one[1] for one in wanted[user]])
        assert record.ts == max(one.time for one in record.history)
    return read
