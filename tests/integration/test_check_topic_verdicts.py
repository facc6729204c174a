"""What `check-topic` refuses, and how it weighs what it finds."""

import json
import time
import tomllib

import pytest

from streamer.errors import Refused
from tests.integration.test_check_topic import Topic, key, own, topic

__all__ = ["topic"]


def vectors(n: int) -> list[tuple[bytes, bytes]]:
    """Records as Walkstream publishes them, each item three times."""
    out = []
    for at in range(n):
        item = f"sku-{at % (n // 3)}"
        record = {
            "item_id": item, "space": "s", "vector": [0.5] * 16, "cluster": at % 4,
            "version": at, "ts": int(time.time() * 1000),
        }  # fmt: skip
        out.append((item.encode(), json.dumps(record).encode()))
    return out


def test_a_topic_of_vectors_is_refused_whatever_fields_it_has(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    topic.send(vectors(120))
    with pytest.raises(Refused, match=r"hardly a topic of clicks: .*it holds vectors") as refused:
        topic.report(capsys)
    assert refused.value.exit_code == 3
    with pytest.raises(Refused, match=r"it is topics\.item_vectors of this configuration"):
        topic.report(capsys, {"topics.item_vectors": topic.name})


def test_keys_that_are_the_items_are_no_users(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = [{"item_id": c["item_id"], "ts": c["ts"]} for c in own(100)]
    topic.send([(c["item_id"].encode(), json.dumps(c).encode()) for c in clicks])
    with pytest.raises(Refused, match=r"in 100 of 100 clicks the user \(from @key\) is the item"):
        topic.report(capsys)


def test_event_types_are_weighed_and_those_against_an_item_are_left_out(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    types = ["view", "add to cart", "remove_from_cart", "teleport"]
    clicks = [c | {"event_type": types[at % 4]} for at, c in enumerate(own(200))]
    topic.send([(key(c), json.dumps(c).encode()) for c in clicks])
    found = topic.report(capsys)
    assert {name: one.weight for name, one in found.event_types.items()} == {
        "view": 1.0, "add to cart": 2.0, "remove_from_cart": 0.0, "teleport": 1.0,
    }  # fmt: skip
    weights = tomllib.loads(found.settings)["events"]["weights"]
    assert weights == {"add to cart": 2.0, "remove_from_cart": 0.0, "teleport": 1.0}
    assert "speaks against the item" in found.event_types["remove_from_cart"].note
    assert (found.clicks, found.bad, found.unwanted) == (150, 0, 50)
    settled = topic.report(capsys, {"events.weights.teleport": 0.5, "events.weights.*": 0.1})
    assert settled.event_types["teleport"].weight == 0.5
    assert settled.event_types["remove_from_cart"].weight == 0.1


def test_what_is_configured_wins_over_guesses(
    topic: Topic, capsys: pytest.CaptureFixture[str]
) -> None:
    clicks = [c | {"account": f"a{at % 9}", "event_id": at} for at, c in enumerate(own(100))]
    topic.send([(key(c), json.dumps(c).encode()) for c in clicks])
    settings = {"clicks.fields.user_id": "account", "clicks.fields.event_id": ""}
    found = topic.report(capsys, settings)
    assert found.users == 9
    fields = topic.as_pasted(found.settings).clicks.fields
    assert (fields["user_id"], fields["event_id"]) == ("account", "")
