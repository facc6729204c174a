"""Filters and weights of what a query found."""

import msgspec
import numpy as np
import pytest

from core.graph.written import Node
from streamer import counts
from streamer.demo.shop import Shop
from streamer.errors import WalkstreamError
from streamer.files import replay
from streamer.files.readers import Source
from streamer.query.choice import PRIOR, Choice, parsed, rates
from streamer.query.cluster import hottest
from streamer.query.index import Answer, Index, Mode
from streamer.settings import load as config
from streamer.state.store import Store
from streamer.worker import checkpoint

START_MS = 1_700_000_000_000
SHOP = Shop(1, products=300)
ITEMS = {item["item_id"]: item["attributes"] for item in SHOP.items()}
CATEGORIES = sorted({str(attributes["category"]) for attributes in ITEMS.values()})
MODES = pytest.mark.parametrize("mode", ["similar", "next", "hybrid"])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("learned")
    clicks, items = folder / "clicks.jsonl", folder / "items.jsonl"
    made = SHOP.clicks(START_MS, 1.0)
    clicks.write_bytes(b"\n".join(msgspec.json.encode(next(made)) for _ in range(6000)))
    items.write_bytes(b"\n".join(msgspec.json.encode(item) for item in SHOP.items()))
    settings = config.load(
        None,
        [
            *("model.dim=16", "round.max_events=500"),
            *("clusters.count=6", "clusters.min_items=50"),
        ],
        {},
    )
    replay.run(settings, Source([clicks]), items, folder / "out", False)
    return Index(Store(folder / "out" / "state"))


def ask(index: Index, mode: Mode, k: int = 10, choice: Choice | None = None) -> Answer:
    item = max(ITEMS, key=lambda item: index._handle(item) is not None)
    return index.neighbours([item], k, mode, choice=choice or Choice())


@MODES
def test_a_filter_gives_the_best_of_those_that_pass(index: Index, mode: Mode) -> None:
    everything = ask(index, mode, k=400).neighbours
    for category in CATEGORIES[:3]:
        chosen = Choice(parsed([f"category={category}"]))
        found = ask(index, mode, k=5, choice=chosen).neighbours
        wanted = [one for one in everything if one.attributes.get("category") == category][:5]
        assert {str(one.attributes["category"]) for one in found} == {category}
        assert len(found) == len(wanted)
        # As in any query some of those that are near are not met; of hybrid, shares are of more.
        same = {one.item for one in found} & {one.item for one in wanted}
        assert mode == "hybrid" or len(same) >= len(wanted) - 1


def test_of_one_name_any_value_will_do_and_of_several_names_all_are_needed(index: Index) -> None:
    a, b = CATEGORIES[:2]
    either = ask(index, "similar", 50, Choice(parsed([f"category={a}", f"category={b}"])))
    assert {str(one.attributes["category"]) for one in either.neighbours} == {a, b}
    no_such = ask(index, "similar", 50, Choice(parsed([f"category={a}", "colour=none"])))
    assert no_such.neighbours == []
    # One of several values of an attribute is enough.
    assert Choice(parsed(["tags=x"])).fits({"tags": ["y", "x"]})
    assert not Choice(parsed(["tags=x"])).fits({"tags": ["y"]})


@MODES
def test_a_cut_off_shows_what_scores_as_much(index: Index, mode: Mode) -> None:
    plain = ask(index, mode, 20).neighbours
    bound = plain[7].score
    found = ask(index, mode, 20, Choice(min_score=bound)).neighbours
    assert found == [one for one in plain if one.score >= bound]


@MODES
def test_heat_and_freshness_multiply_scores(index: Index, mode: Mode) -> None:
    plain = ask(index, mode, 400).neighbours
    assert ask(index, mode, 400, Choice(heat=0.0, freshness=0.0)).neighbours == plain
    nodes = {one.item: checkpoint.node(index.store, one.item.encode()) for one in plain}
    seen = [node.seen for node in nodes.values() if node is not None]
    now = max(seen)
    decayed = {
        item: node.clicked * 2.0 ** ((node.landmark - now) / node.half_life)
        for item, node in nodes.items() if node is not None
    }  # fmt: skip
    hottest = max(decayed.values())
    found = ask(index, mode, 400, Choice(heat=0.5, freshness=2.0)).neighbours
    got = {one.item: one.score for one in found}
    for one in plain:
        node = nodes[one.item]
        assert node is not None
        heat = (1 + decayed[one.item]) / (1 + hottest)
        fresh = 2.0 ** ((node.seen - now) / node.half_life)
        weight = heat**0.5 * fresh**2
        wanted = one.score * weight if one.score > 0 else one.score / weight
        assert got[one.item] == pytest.approx(wanted, rel=1e-4)
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True)
    assert [one.item for one in found] != [one.item for one in plain]
    assert np.ptp(seen) > 0


def test_rates_are_smoothed_towards_the_mean_one() -> None:
    clicks, shown = np.array([10.0, 1.0, 0.0, 5.0, 3.0]), np.array([100.0, 2.0, 50.0, 48.0, 0.0])
    mean = 16.0 / 200.0
    wanted = [(c + PRIOR * mean) / (s + PRIOR) / mean for c, s in zip(clicks, shown, strict=True)]
    assert rates(clicks, shown) == pytest.approx([*wanted[:4], 1.0])
    assert rates(clicks, shown)[1] < 2.5, "a click at the second impression is no rate of a half"
    assert rates(clicks, np.zeros(5)).tolist() == [1.0] * 5
    assert rates(np.zeros(5), shown).tolist() == [1.0] * 5


@MODES
def test_a_click_through_rate_multiplies_scores(
    index: Index, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ask(index, mode, 400).neighbours
    assert ask(index, mode, 400, Choice(ctr=1.0)).neighbours == plain, "nothing was shown"
    shown = {one.item: 1.0 + 10.0 * (number % 7) for number, one in enumerate(plain)}
    stored = checkpoint.node

    def with_impressions(store: Store, item: bytes) -> Node | None:
        found = stored(store, item)
        scale = 0.0 if found is None else 2.0 ** ((now - found.landmark) / found.half_life)
        return found and found._replace(shown=shown.get(item.decode(), 0.0) * scale)

    nodes = {one.item: stored(index.store, one.item.encode()) for one in plain}
    now = max(node.seen for node in nodes.values() if node is not None)
    monkeypatch.setattr(checkpoint, "node", with_impressions)
    got = {one.item: one.score for one in ask(index, mode, 400, Choice(ctr=2.0)).neighbours}
    clicks = np.array([checkpoint.clicks_at(nodes[one.item], now) for one in plain])
    by = rates(clicks, np.array([shown[one.item] for one in plain])) ** 2.0
    for one, weight in zip(plain, by.tolist(), strict=True):
        wanted = one.score * weight if one.score > 0 else one.score / weight
        assert got[one.item] == pytest.approx(wanted, rel=1e-4)


def test_the_hottest_of_a_cluster_are_its_most_clicked_items(index: Index) -> None:
    sizes = counts.cluster_sizes(index.store)
    cluster = max(sizes, key=lambda one: sizes[one])
    found = hottest(index.store, cluster, 400, Choice())
    assert found.members == len(found.items) == sizes[cluster]
    clicks = [one.clicks for one in found.items]
    assert clicks == sorted(clicks, reverse=True)
    assert sum(one.share for one in found.items) == pytest.approx(1.0)
    nodes = [checkpoint.node(index.store, one.item.encode()) for one in found.items]
    now = max(node.seen for node in nodes if node is not None)
    for one, node in zip(found.items, nodes, strict=True):
        assert node is not None
        scale = 2.0 ** ((node.landmark - now) / node.half_life)
        assert one.clicks == pytest.approx(node.clicked * scale)
    few = hottest(index.store, cluster, 3, Choice())
    assert few.items == found.items[:3]
    category = str(found.items[-1].attributes["category"])
    some = hottest(index.store, cluster, 400, Choice(parsed([f"category={category}"])))
    assert [one.item for one in some.items] == [
        one.item for one in found.items if one.attributes["category"] == category
    ]
    with pytest.raises(WalkstreamError, match="nothing is in cluster 99; there are 0 to "):
        hottest(index.store, 99, 3, Choice())


@pytest.mark.parametrize("text", ["category", "=shoes"])
def test_a_filter_needs_a_name_and_an_equals_sign(text: str) -> None:
    with pytest.raises(ValueError, match="write NAME=VALUE"):
        parsed([text])
