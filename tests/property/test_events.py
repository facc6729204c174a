"""Whatever is in the clicks topic, each record is either a click or a dead letter with a reason."""

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.events import Invalid, Item, Reason, decode_batch, decode_item
from streamer.settings import EventSettings

SETTINGS = EventSettings()

numbers = st.integers() | st.floats() | st.integers(0, 2 * 10**12)
text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = st.none() | st.booleans() | numbers | text
structures = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3)
)
near_clicks = st.fixed_dictionaries(
    {"user_id": st.integers() | text, "item_id": st.integers() | text, "ts": numbers},
    optional={
        "event_type": st.sampled_from(["click", "cart"]) | text,
        "weight": numbers,
        "event_id": structures,
    },
)
damaged_clicks = st.builds(
    lambda click, name, value: click | {name: value},
    near_clicks,
    st.sampled_from(["user_id", "item_id", "ts", "event_type", "weight"]),
    structures,
)
values = (
    st.none()
    | st.binary()
    | st.builds(
        lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(
            errors="surrogatepass"
        ),
        structures | near_clicks | damaged_clicks,
        st.booleans(),
    )
)
timestamps = st.just(-1) | st.integers(0, 2 * 10**12)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.lists(st.tuples(values, timestamps), max_size=8))
def test_every_record_ends_once_as_a_click_or_as_a_reasoned_dead_letter(
    records: list[tuple[bytes | None, int]],
) -> None:
    clicks, bad = decode_batch([v for v, _ in records], [t for _, t in records], SETTINGS)
    places = [index for index, _, _ in bad]
    assert places == sorted(set(places) & set(range(len(records))))
    assert len(clicks) + len(bad) == len(records)
    assert len(clicks.items) == len(clicks.times) == len(clicks.weights) == len(clicks)
    assert all(isinstance(reason, Reason) and message for _, reason, message in bad)

    accepted = [record for index, record in enumerate(records) if index not in set(places)]
    for user, item, time, (value, timestamp) in zip(
        clicks.users, clicks.items, clicks.times.tolist(), accepted, strict=True
    ):
        assert value is not None
        source = json.loads(value)
        assert (user, item) == (str(source["user_id"]), str(source["item_id"]))
        assert 0 < len(user.encode()) <= 512
        assert 0 < len(item.encode()) <= 512
        assert time == (min(source["ts"], timestamp) if timestamp >= 0 else source["ts"])
    assert bool(np.all(np.isfinite(clicks.weights) & (clicks.weights > 0)))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(near_clicks, timestamps)
def test_a_verdict_does_not_depend_on_the_rest_of_the_batch(
    fields: dict[str, Any], timestamp: int
) -> None:
    value = json.dumps(fields).encode()
    alone, bad = decode_batch([value], [timestamp], SETTINGS)
    among, bad_among = decode_batch([b"?", value, None], [0, timestamp, 0], SETTINGS)
    assert among.users == alone.users
    assert bad_among[1:-1] == [(1, reason, message) for _, reason, message in bad]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.none() | st.binary(max_size=8),
    values
    | st.builds(
        lambda attributes: json.dumps({"item_id": "a", "attributes": attributes}).encode(),
        structures,
    ),
)
def test_an_item_record_is_an_item_or_invalid_with_a_reason(
    key: bytes | None, value: bytes | None
) -> None:
    try:
        item = decode_item(key, value)
    except Invalid as invalid:
        assert invalid.message  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(item, Item)
        assert 0 < len(item.id.encode()) <= 512
        assert (item.attributes is None) == (value is None)
