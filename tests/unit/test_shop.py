from collections import Counter
from itertools import islice, pairwise
from typing import Any

import pytest

from streamer.shop import Shop

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
    ],
)
def test_sizes_that_no_shop_can_have_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not"):
        Shop(1, **sizes)
