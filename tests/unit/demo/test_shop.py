import json
from collections import Counter
from collections.abc import Iterable
from itertools import count, islice, pairwise
from typing import Any

import numpy as np
import pytest

from streamer.decode.events import Decoder
from streamer.demo.malformed import MALFORMED
from streamer.demo.shop import Record, Shop
from streamer.settings.sections import ClickSettings, EventSettings

START_MS = 1_700_000_000_000


def visits(clicks: list[dict[str, Any]], gap_ms: int) -> list[list[str]]:
    """Item ids of every session: clicks of one user no further apart than `gap_ms`."""
    sessions: list[list[str]] = []
    last: dict[str, tuple[int, list[str]]] = {}
    for click in clicks:
        before, session = last.get(click["user_id"], (0, []))
        if click["ts"] - before > gap_ms:
            session = []
            sessions.append(session)
        session.append(click["item_id"])
        last[click["user_id"]] = click["ts"], session
    return sessions


def records(shop: Shop, clicks: int) -> list[Record]:
    """The opening products, and then so many records, a click every 5 ms."""
    return list(islice(shop.records(count(START_MS, 5).__next__), shop.opening + clicks))


def values(stream: Iterable[Record]) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"null") for record in stream]


def test_the_same_seed_gives_the_same_shop_and_stream() -> None:
    one, two, other = Shop(3), Shop(3), Shop(4)
    stream = list(islice(one.clicks(START_MS), 500))
    assert (
        stream == list(islice(two.clicks(START_MS), 500)) == list(islice(one.clicks(START_MS), 500))
    )
    assert one.items() == two.items() != other.items()
    assert stream != list(islice(other.clicks(START_MS), 500))


@pytest.mark.parametrize(("products", "categories"), [(300, 15), (7, 3), (7500, 15), (2, 1)])
def test_names_and_ids_are_unique(products: int, categories: int) -> None:
    items = Shop(1, products=products, categories=categories).items()
    assert len({item["item_id"] for item in items}) == products
    assert len({item["attributes"]["name"] for item in items}) == products
    assert len({item["attributes"]["category"] for item in items}) == categories


def test_sessions_stay_in_a_category_far_above_chance() -> None:
    shop = Shop(1, users=20_000)
    clicks = list(islice(shop.clicks(START_MS, rate=500.0), 40_000))
    category = {item["item_id"]: item["attributes"]["category"] for item in shop.items()}
    pairs = [pair for session in visits(clicks, gap_ms=100_000) for pair in pairwise(session)]
    same = sum(category[a] == category[b] for a, b in pairs) / len(pairs)
    shares = Counter(category[click["item_id"]] for click in clicks)
    chance = sum((count / len(clicks)) ** 2 for count in shares.values())
    assert chance < 0.15
    assert 0.7 < same < 0.95


def test_a_session_also_keeps_to_a_kind_of_item() -> None:
    shop = Shop(1)
    item_of = {item["item_id"]: item["attributes"] for item in shop.items()}
    clicks = list(islice(shop.clicks(START_MS), 20_000))
    last: dict[str, str] = {}
    same_category = same_kind = 0
    for click in clicks:
        now = item_of[click["item_id"]]
        before = item_of.get(last.get(click["user_id"], ""))
        if before and before["category"] == now["category"]:
            same_category += 1
            same_kind += before["name"].split()[-1] == now["name"].split()[-1]
        last[click["user_id"]] = click["item_id"]
    # Five kinds in a category: 0.2 would be chance.
    assert same_kind / same_category > 0.4


def test_users_prefer_a_few_categories() -> None:
    shop = Shop(2, users=20)
    category = {item["item_id"]: item["attributes"]["category"] for item in shop.items()}
    counts: dict[str, Counter[str]] = {}
    for click in islice(shop.clicks(START_MS), 20_000):
        counts.setdefault(click["user_id"], Counter())[category[click["item_id"]]] += 1
    assert len(counts) == 20
    for own in counts.values():
        assert sum(n for _, n in own.most_common(3)) / own.total() > 0.8


def test_popularity_is_skewed() -> None:
    counts = Counter(click["item_id"] for click in islice(Shop(1).clicks(START_MS), 20_000))
    top = sum(count for _, count in counts.most_common(30))
    assert top / 20_000 > 0.35  # a tenth of the products


def test_time_starts_where_told_never_goes_back_and_keeps_the_rate() -> None:
    clicks = list(islice(Shop(1).clicks(START_MS, rate=200.0), 10_000))
    times = [click["ts"] for click in clicks]
    assert times[0] == START_MS
    assert times == sorted(times)
    assert (times[-1] - times[0]) / 1000 == pytest.approx(10_000 / 200, rel=0.05)


def test_sessions_of_users_are_interleaved() -> None:
    users = [click["user_id"] for click in islice(Shop(1).clicks(START_MS), 1000)]
    assert sum(a != b for a, b in pairwise(users)) > 900


@pytest.mark.parametrize("seed", range(10))
def test_no_item_is_clicked_twice_in_a_row_in_a_session(seed: int) -> None:
    # The first two clicks of an only user are of one session.
    first, second = islice(Shop(seed, products=2, categories=1, users=1).clicks(START_MS), 2)
    assert first["item_id"] != second["item_id"]


@pytest.mark.parametrize(
    "sizes",
    [
        {"products": 10, "categories": 11},
        {"products": 501, "categories": 1},
        {"categories": 16},
        {"categories": 0},
        {"products": 1, "categories": 1},
        {"users": 0},
        {"products": 30, "held_back": 16},
    ],
)
def test_sizes_that_no_shop_can_have_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not"):
        Shop(1, **sizes)


def test_records_are_a_function_of_seed_and_clock() -> None:
    everything: dict[str, Any] = {
        "drift": 0.1, "held_back": 30, "arrive_every": 10,
        "bots": 0.1, "malformed": 0.1, "repeated": 0.1,
    }  # fmt: skip
    one, two, other = (records(Shop(seed, **everything), 1000) for seed in (3, 3, 4))
    assert one == two != other
    assert {record.topic for record in one} == {"clicks", "items"}


def test_records_begin_with_the_products_and_have_the_time_of_the_clock() -> None:
    shop = Shop(1)
    stream = records(shop, 500)
    assert values(stream[: shop.opening]) == shop.items()
    assert {record.time for record in stream[: shop.opening]} == {START_MS}
    clicks = stream[shop.opening :]
    assert [record.time for record in clicks] == [START_MS + 5 * n for n in range(1, 501)]
    assert [click["ts"] for click in values(clicks)] == [record.time for record in clicks]
    assert [click["user_id"].encode() for click in values(clicks)] == [r.key for r in clicks]


def test_event_ids_name_one_click_also_across_streams() -> None:
    shop = Shop(1)
    again = shop.records(count(START_MS + 1, 5).__next__)
    stream = records(shop, 500) + list(islice(again, shop.opening + 500))
    ids = [value["event_id"] for value in values(stream) if "ts" in value]
    assert len(set(ids)) == len(ids) == 1000


@pytest.mark.parametrize(("share", "bots"), [(0.01, 1), (0.1, 1), (0.3, 3)])
def test_bots_are_few_and_click_as_often_as_asked_on_anything(share: float, bots: int) -> None:
    shop = Shop(1, bots=share)
    clicks = values(records(shop, 20_000)[shop.opening :])
    by_bots = [click for click in clicks if click["user_id"].startswith("bot-")]
    assert len(by_bots) / len(clicks) == pytest.approx(share, rel=0.2)
    assert len({click["user_id"] for click in by_bots}) == shop.bots == bots
    items = Counter(click["item_id"] for click in by_bots)
    assert len(items) > 100  # of 300 products, at random


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_as_many_records_are_malformed_as_asked_and_the_worker_refuses_them(share: float) -> None:
    shop = Shop(1, malformed=share)
    clicks = records(shop, 10_000)[shop.opening :]
    decoded = Decoder(ClickSettings(), EventSettings())(
        [r.key for r in clicks], [r.value for r in clicks], [r.time for r in clicks]
    )
    assert len(decoded.bad) / len(clicks) == pytest.approx(share, rel=0.25)
    assert len(decoded.clicks) + len(decoded.bad) == len(clicks)
    assert {bad.reason.value for bad in decoded.bad} >= {
        "undecodable", "bad_field", "bad_id", "bad_weight", "bad_time", "unknown_type",
    }  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_every_way_to_spoil_a_click_makes_it_a_dead_letter(kind: str) -> None:
    click = next(Shop(1).clicks(START_MS))
    decode = Decoder(ClickSettings(), EventSettings())
    assert not decode([b"u"], [json.dumps(click).encode()], [START_MS]).bad
    decoded = decode([b"u"], [MALFORMED[kind](click)], [START_MS])
    assert (len(decoded.clicks), len(decoded.bad)) == (0, 1)


def test_repeated_records_come_twice_in_a_row_with_one_event_id() -> None:
    shop = Shop(1, repeated=0.2)
    clicks = records(shop, 10_000)[shop.opening :]
    twice = [a for a, b in pairwise(clicks) if a == b]
    assert len(twice) / len(clicks) == pytest.approx(0.2 / 1.2, rel=0.1)
    ids = Counter(click["event_id"] for click in values(clicks))
    assert set(ids.values()) == {1, 2}
    assert sum(n == 2 for n in ids.values()) == len(twice)


def test_products_that_are_held_back_arrive_one_by_one_before_their_first_click() -> None:
    shop = Shop(1, products=100, held_back=20, arrive_every=200)
    stream = records(shop, 8000)
    ids = [item["item_id"] for item in shop.items()]
    assert [value["item_id"] for value in values(stream[:80])] == ids[:80]
    later = stream[80:]
    arrivals = [n for n, record in enumerate(later) if record.topic == "items"]
    assert [value["item_id"] for value in values(later[n] for n in arrivals)] == ids[80:]
    assert all(150 < b - a < 250 for a, b in pairwise([0, *arrivals]))
    known = set(ids[:80])
    clicks: Counter[str] = Counter()
    for record, value in zip(later, values(later), strict=True):
        if record.topic == "items":
            known.add(value["item_id"])
        else:
            assert value["item_id"] in known
            clicks[value["item_id"]] += 1
    assert all(clicks[item] > 10 for item in ids[80:])


def test_sessions_of_a_category_begin_to_include_what_arrives() -> None:
    shop = Shop(1, users=2000, held_back=1, arrive_every=2000)
    stream = [v for v in values(records(shop, 20_000)[shop.opening :]) if "ts" in v]
    category = {item["item_id"]: item["attributes"]["category"] for item in shop.items()}
    new = shop.items()[-1]["item_id"]
    beside = [
        category[other]
        for visit in visits(stream, gap_ms=12_000)
        for pair in pairwise(visit)
        for a, other in (pair, pair[::-1])
        if a == new
    ]
    assert len(beside) > 50
    assert beside.count(category[new]) / len(beside) > 0.6


def pairs_of(clicks: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """How often each pair of items was clicked one after the other in a visit."""
    return Counter(pair for visit in visits(clicks, gap_ms=100_000) for pair in pairwise(visit))


def likeness(a: Counter[tuple[str, str]], b: Counter[tuple[str, str]]) -> float:
    """Cosine of two sets of counts."""
    keys = sorted(a.keys() | b.keys())
    x, y = (np.array([counts[key] for key in keys], float) for counts in (a, b))
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def test_drift_changes_what_is_clicked_together_slowly() -> None:
    def parts(drift: float) -> list[Counter[tuple[str, str]]]:
        shop = Shop(1, products=60, users=20_000, drift=drift)
        clicks = list(islice(shop.clicks(START_MS, rate=500.0), 60_000))
        return [pairs_of(clicks[n : n + 15_000]) for n in range(0, 60_000, 15_000)]

    still, moving = parts(0.0), parts(0.01)
    assert likeness(still[0], still[3]) > 0.95
    assert likeness(moving[0], moving[1]) > likeness(moving[0], moving[3]) + 0.1
    assert likeness(moving[0], moving[3]) < 0.75


def test_drift_changes_what_users_favour() -> None:
    def same_favourite(drift: float) -> float:
        shop = Shop(1, users=40, drift=drift)
        category = {item["item_id"]: item["attributes"]["category"] for item in shop.items()}
        clicks = list(islice(shop.clicks(START_MS), 60_000))
        favourites: list[dict[str, str]] = []
        for part in (clicks[:20_000], clicks[-20_000:]):
            counts: dict[str, Counter[str]] = {}
            for click in part:
                counts.setdefault(click["user_id"], Counter())[category[click["item_id"]]] += 1
            favourites.append({user: own.most_common(1)[0][0] for user, own in counts.items()})
        first, last = favourites
        return sum(first[user] == last[user] for user in first) / len(first)

    assert same_favourite(0.0) > 0.8
    assert same_favourite(0.01) < 0.5


def test_few_are_there_at_a_time_and_nobody_comes_back_before_the_others() -> None:
    users = [click["user_id"] for click in islice(Shop(1, users=500, present=10).clicks(0), 2000)]
    assert len(set(users[:50])) < 25
    assert len(set(users)) > 350  # of about 400 visits
