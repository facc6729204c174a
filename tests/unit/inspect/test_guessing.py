import json
from typing import Any

import msgspec
import numpy as np
import pytest

from core.settings import Duration, GraphSettings
from streamer.inspect import guessing, proposal, shapes
from streamer.inspect.guessing import Guess
from streamer.inspect.shapes import Form
from streamer.settings.sections import EventSettings

NOW = 1_750_000_000_000
N = 400


def session(n: int, **make: Any) -> list[dict[str, Any]]:
    """n clicks, a second apart; each field is made from a user, an item and the number."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(40, size=n).tolist(), rng.integers(90, size=n).tolist()
    return [
        {name: one(user, item, at) for name, one in make.items()}
        for at, (user, item) in enumerate(zip(users, items, strict=True))
    ]


def guessed(
    clicks: list[dict[str, Any]],
    keys: list[bytes | None] | None = None,
    given: dict[str, str] | None = None,
    sent: bool = True,
) -> Guess:
    stamps = [NOW + 1000 * at if sent else -1 for at in range(len(clicks))]
    found = shapes.fields(clicks)
    keys = keys or [None] * len(clicks)
    return guessing.guess(found, len(clicks), keys, stamps, given or {}, NOW)


def user(user: int, item: int, at: int) -> str:
    return f"u{user}"


def item(user: int, item: int, at: int) -> int:
    return item


def ms(user: int, item: int, at: int) -> int:
    return NOW + 1000 * at


def unique(user: int, item: int, at: int) -> str:
    return f"{at:08x}"


def kind(user: int, item: int, at: int) -> str:
    return ("view", "view", "cart")[at % 3]


# -- forms ---------------------------------------------------------------------------------------

ONE, TWO = {"user": "a", "n": 1}, {"user": "b", "n": 2}
as_msgpack = msgspec.msgpack.encode


def as_json(document: object) -> bytes:
    return json.dumps(document).encode()


@pytest.mark.parametrize(("value", "form", "objects"), [
    (as_json(ONE), Form.OBJECT, [ONE]),
    (json.dumps(ONE, indent=2).encode(), Form.OBJECT, [ONE]),
    (as_json([ONE, TWO]), Form.ARRAY, [ONE, TWO]),
    (as_json(ONE) + b"\n" + as_json(TWO) + b"\n", Form.LINES, [ONE, TWO]),
    (as_json(ONE) + b"\nbroken\n" + as_json(TWO), Form.LINES, [ONE, TWO]),
    (as_msgpack(ONE), Form.MSGPACK, [ONE]),
    (as_msgpack([ONE, TWO]), Form.MSGPACK_ARRAY, [ONE, TWO]),
    (b"\x00\x00\x00\x00\x07" + as_json(ONE), Form.FRAMED_JSON, [ONE]),
    (b"\x00\x00\x00\x00\x07\x02a\x04", Form.FRAMED, []),
    (None, Form.NULL, []),
    (b"", Form.UNKNOWN, []),
    (b"42", Form.UNKNOWN, []),
    (b"id=7;user=3", Form.UNKNOWN, []),
    (b"\xff\xfe", Form.UNKNOWN, []),
])  # fmt: skip
def test_the_form_of_a_value_is_told_with_its_objects(
    value: bytes | None, form: Form, objects: list[Any]
) -> None:
    assert shapes.parse(value) == (form, objects)


def test_fields_are_flattened_with_their_types_and_nulls_do_not_count() -> None:
    found = shapes.fields(
        [
            {"user": {"id": 1, "name": None}, "tags": ["x"], "flag": True, "a.b": 1.5},
            {"user": {"id": "two"}, "tags": [], "flag": False},
            {"user": {"id": "three"}},
        ]
    )
    assert {path: (f.types, len(f.values)) for path, f in found.items()} == {
        "user.id": (["string", "integer"], 3),
        "user.name": ([], 0),
        "tags": (["array"], 2),
        "flag": (["boolean"], 2),
        "a.b": (["float"], 1),
    }


# -- which field means what ----------------------------------------------------------------------


@pytest.mark.parametrize(("name_of_user", "name_of_item", "time", "type_"), [
    ("user_id", "item_id", "ts", "event_type"),
    ("visitorid", "itemid", "timestamp", "event"),
    ("customerID", "StockCode", "InvoiceDate", "action"),
    ("userId", "productId", "createdAt", "eventType"),
    ("session_id", "sku", "event_time", "type"),
    ("client-uid", "content_id", "occurred_at", "interaction_type"),
    ("uid", "asin", "time", "event_name"),
    ("u", "i", "t", "name"),
])  # fmt: skip
def test_fields_are_known_by_their_names(
    name_of_user: str, name_of_item: str, time: str, type_: str
) -> None:
    clicks = session(
        N,
        **{type_: kind, "price": lambda u, i, at: 1.5 * i, time: ms, "item_name": user},
        **{name_of_item: item, name_of_user: user, "country": lambda u, i, at: "de"},
    )
    assert guessed(clicks).paths == {
        "user_id": name_of_user, "item_id": name_of_item, "ts": time, "event_type": type_,
    }  # fmt: skip


def test_nested_fields_are_known_by_what_they_are_in() -> None:
    clicks = session(
        N,
        meta=lambda u, i, at: {"id": f"{at:08x}", "source": "web"},
        user=lambda u, i, at: {"id": u, "type": "guest", "since": NOW // 1000 - 9_000_000},
        product=lambda u, i, at: {"sku": f"p{i}", "type": "view", "name": f"p{i}"},
        event=lambda u, i, at: {"type": "view", "at": NOW // 1000 + at},
    )
    found = guessed(clicks)
    assert found.paths == {
        "user_id": "user.id", "item_id": "product.sku", "event_id": "meta.id",
        "event_type": "event.type", "ts": "event.at",
    }  # fmt: skip
    assert found.time_unit == "s"


def test_the_name_of_an_event_is_its_type_and_that_of_a_user_or_an_item_is_not() -> None:
    names = ("heartbeat", "scroll", "search", "impression", "banner")
    clicks = session(
        N,
        event=lambda u, i, at: {"name": names[at % 5]},
        user=lambda u, i, at: {"id": u, "name": f"n{u % 3}"},
        item=lambda u, i, at: {"id": i, "name": f"n{i % 3}"},
        ts=ms,
    )
    assert guessed(clicks).paths["event_type"] == "event.name"
    for click in clicks:
        del click["event"]
    assert "event_type" not in guessed(clicks).paths


def test_items_inside_arrays_are_named_and_nothing_else_is_taken_for_the_item() -> None:
    orders = session(
        N,
        customer_id=user,
        ts=ms,
        status=lambda u, i, at: ("paid", "sent", "open")[at % 3],
        lines=lambda u, i, at: [{"sku": f"p{i}", "qty": 1}, {"sku": "p1", "qty": 2}],
        products=lambda u, i, at: [f"p{i}"],
        tags=lambda u, i, at: ["x", "y"],
    )
    assert guessing.items_in_arrays(shapes.fields(orders)) == ["lines[].sku", "products[]"]
    keys: list[bytes | None] = [f"k{at % 30}".encode() for at in range(N)]
    for found in (guessed(orders), guessed(orders, keys)):
        assert found.paths["user_id"] == "customer_id"
        assert "item_id" not in found.paths


def test_arrays_of_many_numbers_are_vectors() -> None:
    found = shapes.fields(
        [{"v": [0.5] * 16, "pair": [1, 2], "tags": ["a"] * 16, "n": None}, {"v": [1] * 16}]
    )
    assert guessing.vectors(found) == ["v"]


def test_an_event_id_is_unique_and_a_type_has_few_values() -> None:
    clicks = session(N, user=user, item=item, ts=ms, id=unique, event=unique, action=kind)
    assert guessed(clicks).paths["event_id"] in ("id", "event")
    assert guessed(clicks).paths["event_type"] == "action"
    repeated = session(N, user=user, item=item, ts=ms, id=item)
    assert "event_id" not in guessed(repeated).paths


def test_a_field_that_most_clicks_lack_yields_to_one_that_all_have() -> None:
    clicks = session(
        N,
        user_id=lambda u, i, at: u if at % 10 == 0 else None,
        device=lambda u, i, at: f"d{u}",
        item=item,
        ts=ms,
    )
    assert guessed(clicks).paths["user_id"] == "device"


def test_a_weight_is_a_positive_number_of_that_name() -> None:
    clicks = session(N, user=user, item=item, ts=ms, weight=lambda u, i, at: 0.5 + at)
    assert guessed(clicks).paths["weight"] == "weight"
    product = session(N, user=user, ts=ms, item=lambda u, i, at: {"id": i, "weight": 5.0})
    assert "weight" not in guessed(product).paths
    balance = session(N, user=user, item=item, ts=ms, weight=lambda u, i, at: at % 2)
    assert "weight" not in guessed(balance).paths
    parcels = session(N, user=user, item=item, ts=ms, weight=lambda u, i, at: f"{at} kg")
    assert "weight" not in guessed(parcels).paths


def test_one_field_of_ids_that_is_left_over_is_the_missing_one() -> None:
    clicks = session(N, user=user, thing=item, ts=ms, page_title=lambda u, i, at: f"{at}")
    found = guessed(clicks)
    assert found.paths["item_id"] == "thing"
    assert "name" not in found.why["item_id"]
    two = session(N, user=user, thing=item, other=item, ts=ms)
    assert "item_id" not in guessed(two).paths


def test_keys_and_record_timestamps_stand_in_for_fields_that_are_missing() -> None:
    clicks = session(N, item=item)
    keys: list[bytes | None] = [f"u{at % 30}".encode() for at in range(N)]
    found = guessed(clicks, keys)
    assert found.paths == {"user_id": "@key", "item_id": "item", "ts": "@timestamp"}
    assert guessed(clicks, sent=False).paths == {"item_id": "item"}
    by_item = session(N, visitor=user)
    items: list[bytes | None] = [f"p{at % 30}".encode() for at in range(N)]
    assert guessed(by_item, items).paths["item_id"] == "@key"


def test_keys_that_are_users_are_not_taken_for_items_as_well() -> None:
    clicks = session(N, visitor=user)
    keys: list[bytes | None] = [click["visitor"].encode() for click in clicks]
    assert "item_id" not in guessed(clicks, keys).paths


def test_the_field_that_is_also_the_key_is_the_user() -> None:
    clicks = session(N, who=user, item=item, ts=ms, where=lambda u, i, at: f"c{at % 7}")
    keys: list[bytes | None] = [click["who"].encode() for click in clicks]
    assert guessed(clicks, keys).paths["user_id"] == "who"


def test_what_is_given_stays_and_is_not_used_twice() -> None:
    clicks = session(N, user_id=user, account=user, item=item, ts=ms)
    found = guessed(clicks, given={"user_id": "account", "event_id": "user_id"})
    assert found.paths["user_id"] == "account"
    assert found.paths["event_id"] == "user_id"
    assert found.why["user_id"] == "as configured"


def test_odd_values_and_names_do_no_harm() -> None:
    deep: dict[str, Any] = {"user": "u"}
    for _ in range(900):
        deep = {"deep": deep}
    odd: list[Any] = [
        float("nan"),
        float("inf"),
        10**400,
        -1,
        "x",
        None,
        [],
        True,
        "\ud800",
        b"\xff",
    ]
    clicks: list[Any] = [
        {"user": u, "item": "i", "ts": u, "weight": u, "type": u, "\ud800": 1, "": 2, 3: 4} | deep
        for u in odd
    ]
    found = guessed(clicks)
    assert found.paths["ts"] == "@timestamp"
    assert "weight" not in found.paths
    good = session(N, user=user, item=item, ts=ms, type=kind)
    assert guessed([*good, *clicks]).paths == guessed(good).paths


def test_nothing_is_found_in_nothing() -> None:
    assert guessed([]).paths == {}


# -- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "unit"), [
    ([NOW, NOW + 5], "ms"),
    ([NOW // 1000], "s"),
    ([NOW / 1000 + 0.25], "s"),
    ([NOW * 1000], "us"),
    ([NOW * 1_000_000], "ns"),
    (["2026-01-31T12:00:00Z", "2026-01-31 12:00:00.5+02:00"], "iso"),
    ([NOW // 1000 - 20 * 31_557_600], "s"),
    ([17, 18], None),
    ([True], None),
    (["2026-01-31"], None),
    (["12:30 at the gate"], None),
    ([str(NOW)], None),
    ([NOW, "later"], None),
    ([], None),
])  # fmt: skip
def test_units_of_times_are_told_by_magnitude(values: list[Any], unit: str | None) -> None:
    assert guessing.time_unit(values, NOW) == unit


# -- event types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("event_type", "weight"), [
    ("view", 1.0), ("page_view", 1.0), ("ProductClicked", 1.0), ("ADD_TO_CART", 2.0),
    ("addToBasket", 2.0), ("purchase", 3.0), ("Order Completed", 3.0), ("transaction", 3.0),
    ("remove_from_cart", 0.0), ("Refund Issued", 0.0), ("ping", None), ("", None),
])  # fmt: skip
def test_usual_event_types_have_usual_weights(event_type: str, weight: float | None) -> None:
    assert guessing.type_weight(event_type) == weight


# -- what is proposed ----------------------------------------------------------------------------

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


HOURS = 3_600_000


@pytest.mark.parametrize(("half_life", "kept", "horizon", "proposed"), [
    (168, 168, 144, 36),  # Kafka's default, and that of Walkstream
    (168, 336, 312, 168),  # two half-lives
    (24, 168, 144, 24),
    (168, 57 * 24, 0, 168),  # it fits
    (168, 24, 0, 168),  # no horizon fits
    (168, -1 / HOURS, 0, 168),
])  # fmt: skip
def test_the_horizon_is_a_day_less_than_clicks_are_kept(
    half_life: int, kept: float, horizon: int, proposed: int
) -> None:
    given = GraphSettings(half_life=Duration(half_life * HOURS))
    found = proposal.graph(given, round(kept * HOURS))
    assert (found.horizon, found.half_life) == (horizon * HOURS, proposed * HOURS)
