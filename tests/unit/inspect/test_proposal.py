"""The settings that `check-topic` proposes."""

from typing import Any

from streamer.inspect import proposal, shapes
from streamer.settings.sections import EventSettings

PATHS = {"event_type": "type", "user_id": "user", "item_id": "item.id"}


def incomplete(*clicks: tuple[str, Any, Any], paths: dict[str, str] = PATHS) -> dict[str, str]:
    """Of clicks that are given as type, user and item; the user is the key too."""
    sample = [
        ({"type": type_, "user": u, "item": {"id": i}}, u.encode() if u else None)
        for type_, u, i in clicks
    ]
    return proposal.incomplete(sample, paths)


def test_types_most_of_whose_clicks_lack_an_item_or_a_user_are_found() -> None:
    clicks = [
        *[("view", "u", "i")] * 3, ("view", "u", None), ("scroll", "u", None),
        ("search", "u", ""), ("search", "u", "i"), ("search", "u", None), ("ping", None, "i"),
    ]  # fmt: skip
    wanted = {
        "scroll": "100% have no item", "search": "67% have no item", "ping": "100% have no user",
    }  # fmt: skip
    assert incomplete(*clicks) == wanted
    assert incomplete(*clicks, paths=PATHS | {"user_id": "@key"}) == wanted


def test_where_no_type_has_an_item_the_types_are_not_to_blame() -> None:
    assert incomplete(("view", "u", None), ("scroll", "u", None)) == {}


def test_a_weight_that_somebody_has_set_stays_whatever_the_type_lacks() -> None:
    seen = shapes.Field("type", ["view", "scroll", "rent"])
    lacking = dict.fromkeys(("view", "scroll", "rent"), "60% have no item")
    events = EventSettings(weights=EventSettings().weights | {"rent": 2.0, "*": 0.5})
    found = proposal.event_types(seen, events, lacking)
    assert {name: one.weight for name, one in found.items()} == {
        "view": 0.0, "scroll": 0.0, "rent": 2.0,
    }  # fmt: skip
    assert found["view"].note == "60% have no item: 0 leaves it out"
