"""Which types of events were left out, in documents of any shape."""

import json
from typing import Any

from streamer.decode.events import Decoder
from streamer.files.left_out import LeftOutTypes
from streamer.files.lines import STDIN, Record
from streamer.settings.sections import ClickSettings, EventSettings

FIELDS = {"user_id": "who", "item_id": "lines[].sku", "event_type": "lines[].kind | kind"}
WEIGHTS = {"click": 1.0, "seen": 0.0}


def told(documents: list[Any], weights: dict[str, float]) -> list[str]:
    clicks, events = ClickSettings(fields=FIELDS), EventSettings(weights)
    values = [json.dumps(document).encode() for document in documents]
    decoded = Decoder(clicks, events)([None] * len(values), values, [-1] * len(values))
    left_out = LeftOutTypes(clicks, events)
    left_out.add(
        [Record(None, value, None, STDIN, n) for n, value in enumerate(values, 1)], decoded
    )
    return list(left_out.lines())


def order(*kinds: str, **further: Any) -> dict[str, Any]:
    lines = [{"sku": f"a{n}", "kind": kind} for n, kind in enumerate(kinds)]
    return {"who": "u", "ts": 1_700_000_000_000, "lines": lines, **further}


def test_each_click_of_a_document_counts_by_its_own_type() -> None:
    documents = [order("refund", "refund", "seen"), order("refund"), order("click"), [], 7, "x"]
    refund, seen = told(documents, WEIGHTS)
    assert "does not list: 'refund' (3). Give each a weight" in refund
    assert "weigh 0 in events.weights: 'seen' (1)." in seen


def test_types_that_count_are_not_told_whatever_else_is_wrong() -> None:
    no_time = order("click", ts=None)
    assert told([order("click"), no_time], WEIGHTS) == []
    assert told([no_time, order("other"), order("seen")], {**WEIGHTS, "*": 2.0}) == [
        "event types that weigh 0 in events.weights: 'seen' (1). To count them, give them a weight"
    ]
