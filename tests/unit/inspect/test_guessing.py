import json
from typing import Any

import msgspec
import numpy as np
import pytest

from streamer.inspect import guessing, shapes, times
from streamer.inspect.guessing import Guess
from streamer.inspect.shapes import Form

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
    keys = keys or [None] * len(clicks)
    return guessing.guess(shapes.fields(clicks), len(clicks), keys, stamps, given or {}, NOW)


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
        "tags[]": (["string"], 1),
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


def orders(**more: Any) -> list[dict[str, Any]]:
    return session(
        N,
        customer_id=user,
        ts=ms,
        status=lambda u, i, at: ("paid", "sent", "open")[at % 3],
        tags=lambda u, i, at: ["x", "y"],
        **more,
    )


def test_items_inside_arrays_are_items() -> None:
    lines = orders(lines=lambda u, i, at: [{"sku": f"p{i}", "qty": 1}, {"sku": "p1", "qty": 2}])
    skus = orders(products=lambda u, i, at: [f"p{i}", "p1"])
    nested = orders(cart=lambda u, i, at: {"parts": [{"of": [{"product_id": i}]}]})
    keys: list[bytes | None] = [f"k{at % 30}".encode() for at in range(N)]
    for clicks, path in (
        (lines, "lines[].sku"), (skus, "products[]"), (nested, "cart.parts[].of[].product_id"),
    ):  # fmt: skip
        for found in (guessed(clicks), guessed(clicks, keys)):
            assert found.paths["item_id"] == path
            assert found.paths["user_id"] == "customer_id"
            assert found.paths["ts"] == "ts"


def test_a_time_may_be_in_the_array_of_the_items_and_in_no_other() -> None:
    views = session(
        N,
        user=user,
        seen=lambda u, i, at: [{"sku": i, "at": NOW + at}],
        logins=lambda u, i, at: [{"time": NOW + at}],
    )
    assert guessed(views).paths["ts"] == "seen[].at"
    for view in views:
        del view["seen"][0]["at"]
    assert guessed(views).paths["ts"] == "@timestamp"


def test_an_item_of_the_event_goes_before_those_that_it_lists() -> None:
    clicks = session(
        N, user=user, item_id=item, ts=ms, others=lambda u, i, at: [{"item_id": i + 1}] * 3
    )
    assert guessed(clicks).paths["item_id"] == "item_id"


def test_events_of_one_item_and_of_many_name_both_places() -> None:
    """As of Segment: a product that was viewed, and the products of an order."""
    clicks = session(
        N,
        user=user,
        ts=ms,
        properties=lambda u, i, at: (
            {"products": [{"product_id": i}, {"product_id": 1}]} if at % 4 else {"product_id": i}
        ),
    )
    both = "properties.products[].product_id | properties.product_id"
    assert guessed(clicks).paths["item_id"] == both
    for at, click in enumerate(clicks):
        click["properties"]["product_id"] = at % 9
    assert guessed(clicks).paths["item_id"] == "properties.product_id"


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
    (["20260131"], None),
    ([str(NOW)], "ms"),
    ([str(NOW * 1000)], "us"),
    ([f"{NOW / 1000:.3f}"], "s"),
    (["2026-01-31 12:00:00.5 UTC", "2026-01-31 12:00:00 +0000"], "iso"),
    (["2026-01-31 12:00:00", NOW], "auto"),
    ([NOW, NOW // 1000, str(NOW)], "auto"),
    ([NOW, "later"], None),
    ([], None),
])  # fmt: skip
def test_units_of_times_are_told_by_magnitude(values: list[Any], unit: str | None) -> None:
    assert times.time_unit(values, NOW) == unit


@pytest.mark.parametrize(("value", "reason"), [
    ("27/Nov/2026:17:36:44 +0000", "it must be a time such as 2026-01-31T12:00:00Z, not"),
    ("Fri Nov 27 2026 17:36:44", "it must be a time such as"),
    ("2026-01-31", "'2026-01-31' has no time of the day"),
    ("20260131", "is no time near that of the records (2025-06-15) in s, ms, us or ns"),
    (20_260_131_173_644, "is no time near"),
    (NOW + 0.5, "it must be a whole number of ms"),
])  # fmt: skip
def test_a_time_that_cannot_be_read_is_said_and_nothing_stands_in_for_it(
    value: Any, reason: str
) -> None:
    clicks = session(N, user=user, item=item, created_at=lambda u, i, at: value)
    found = guessed(clicks)
    assert "ts" not in found.paths
    assert reason in found.unread["created_at"]
    settled = guessed(clicks, given={"ts": "@timestamp"})
    assert (settled.paths["ts"], settled.unread) == ("@timestamp", {})


@pytest.mark.parametrize("value", [17, "at the gate", True, None, [NOW], 3.5])
def test_what_only_has_the_name_of_a_time_is_none(value: Any) -> None:
    clicks = session(N, user=user, item=item, time=lambda u, i, at: value)
    assert guessed(clicks).paths["ts"] == "@timestamp"


# -- event types ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("event_type", "weight"), [
    ("view", 1.0), ("page_view", 1.0), ("ProductClicked", 1.0), ("ADD_TO_CART", 2.0),
    ("addToBasket", 2.0), ("purchase", 3.0), ("Order Completed", 3.0), ("transaction", 3.0),
    ("remove_from_cart", 0.0), ("Refund Issued", 0.0), ("ping", None), ("", None),
    ("view_item_list", 0.0), ("Product List Viewed", 0.0), ("impression", 0.0),
    ("Product Viewed", 1.0), ("select_item", 1.0), ("Product Added", 2.0), ("view_wishlist", 2.0),
    ("add_payment_info", 3.0), ("item_list_click", 1.0),
])  # fmt: skip
def test_usual_event_types_have_usual_weights(event_type: str, weight: float | None) -> None:
    assert guessing.type_weight(event_type) == weight
