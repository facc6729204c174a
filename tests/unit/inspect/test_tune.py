"""Which tables and bits reach a recall, on vectors of a folder."""

from pathlib import Path

import msgspec
import pytest

from streamer.errors import WalkstreamError
from streamer.inspect import tune
from streamer.inspect.tune import Tuned
from tests.unit.query.test_index import catalogue


@pytest.fixture(autouse=True)
def fewer_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "QUERIES", 60)
    monkeypatch.setattr(tune, "TABLES", (4, 8))


def tuned(path: Path, capsys: pytest.CaptureFixture[str], **changed: object) -> Tuned:
    chosen: dict[str, object] = {"recall": 0.9, "family": None, "budget": None, "plot": None}
    tune.run(path, **chosen | changed, as_json=True, force=False)  # type: ignore[arg-type]
    return msgspec.json.decode(capsys.readouterr().out, type=Tuned)


def test_the_best_reaches_the_recall_at_the_least_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue(tmp_path / "state", 3000)[0].close()
    found = tuned(tmp_path / "state", capsys)
    assert found.best is not None
    assert found.best.recall >= 0.9
    for one in found.tried:
        candidates, hits = zip(*one.curve, strict=True)
        assert list(candidates) == sorted(candidates)
        assert list(hits) == sorted(hits)
        keys = one.tables * (one.probes or tune.PROBES)
        assert one.cost == pytest.approx(one.candidates + tune.KEY_COSTS * keys)
        assert one.probes is None or one.cost >= found.best.cost
    assert (found.in_force.tables, found.in_force.bits) == (8, 12)
    few = tuned(tmp_path / "state", capsys, budget=found.best.candidates * 0.5)
    assert few.best is None or few.best.candidates <= found.best.candidates * 0.5
    more = tuned(tmp_path / "state", capsys, recall=0.99)
    assert more.best is None or more.best.cost > found.best.cost


def test_all_probes_of_few_bits_meet_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue(tmp_path / "state", 400)[0].close()
    found = tuned(tmp_path / "state", capsys, recall=1.0)
    six = next(one for one in found.tried if (one.tables, one.bits) == (4, 6))
    assert six.curve[-1] == (400.0, 1.0)


def test_people_get_a_table_settings_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue(tmp_path / "state", 600)[0].close()
    drawn = tmp_path / "recall.png"
    tune.run(tmp_path / "state", 0.9, "p-stable", None, drawn, False, False)
    out = capsys.readouterr().out
    assert 'family = "p-stable"' in out or "none of these reaches it" in out
    assert "in force" in out
    assert drawn.read_bytes().startswith(b"\x89PNG")


def test_few_items_need_no_index(tmp_path: Path) -> None:
    catalogue(tmp_path / "state", 90)[0].close()
    with pytest.raises(WalkstreamError, match="nothing to tune"):
        tune.run(tmp_path / "state", 0.9, None, None, None, False, False)
