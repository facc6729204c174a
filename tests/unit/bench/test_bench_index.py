import numpy as np
import pytest

from core.placing.clusters import unit_rows

faiss = pytest.importorskip("faiss", reason="the peer of the bench is not installed")

from streamer.bench import catalogue, index  # noqa: E402
from streamer.bench.results import Options  # noqa: E402


def test_the_catalogue_has_the_cosines_that_it_says() -> None:
    v, u = catalogue.nested(20_000, 64, np.random.default_rng(1))
    cosine = -np.sort(-(v[:200] @ v.T), axis=1)
    told = cosine[:, [1, 10, 100, 1000]].mean(axis=0)
    assert told == pytest.approx([0.87, 0.82, 0.68, 0.53], abs=0.04)
    assert np.median(cosine) == pytest.approx(0.32, abs=0.04)
    own = [unit_rows(x - x.mean(axis=0)) for x in (v, u)]
    assert (own[0] * own[1]).sum(axis=1).mean() == pytest.approx(catalogue.ALIKE, abs=0.03)


def test_every_line_has_a_figure_of_each_side_and_a_recall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, small in (("QUICK_ITEMS", 3000), ("QUICK_ROUND", 300), ("QUICK_QUERIES", 5)):
        monkeypatch.setattr(index, name, small)
    results = list(index.measure(Options(quick=True)))
    assert len(results) == 6
    for result in results:
        assert result.bench == "index"
        assert result.ours > 0
        assert result.peer_value is not None
        assert result.ratio == pytest.approx(result.ours / result.peer_value)
    recalls = [float((r.quality or "").removeprefix("recall@10 ")) for r in results[2:]]
    assert min(recalls) > 0.9
