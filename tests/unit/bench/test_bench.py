"""`walkstream bench`: how sides are timed, and how results are told."""

import gzip
import sys
from pathlib import Path

import msgspec
import pytest

from streamer.bench import peers, run
from streamer.bench import round as rounds
from streamer.bench.results import Options, Result, in_turns
from streamer.errors import ConfigError, WalkstreamError

ISSUED = {"bench", "setting", "ours", "unit", "peer", "peer_value", "ratio"} | {
    "quality", "peer_quality", "ceiling",
}  # fmt: skip


def result(**more: object) -> Result:
    told = {
        "bench": "walks", "setting": "p=1 q=1", "ours": 12_345_678.0, "unit": "steps/s",
        "peer": "other 1.0", "ceiling": "memory", **more,
    }  # fmt: skip
    return msgspec.convert(told, Result)


def test_sides_take_turns_and_the_median_counts() -> None:
    order: list[str] = []
    figures = iter([99.0, 5.0, 1.0, 2.0, 4.0, 3.0])

    def first() -> float:
        order.append("first")
        return next(figures)

    def second() -> float:
        order.append("second")
        return 7.0

    assert in_turns(first, second) == [3.0, 7.0]
    # The first call of each is the one that compiles, and counts for nothing.
    assert order == ["first", "second"] * 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (12_345_678.0, "12,300,000"),
        (19.36, "19.4"),
        (0.1864, "0.186"),
        (1000, "1,000"),
    ],
)
def test_figures_have_three_digits(value: float | None, text: str) -> None:
    assert run.number(value) == text


def test_a_line_has_the_ratio_the_target_and_the_ceiling() -> None:
    line = run.as_text(result(peer_value=1_000_000.0, ratio=12.3, target="20 x", quality="1e-3"))
    for part in ("12,300,000 steps/s", "ratio 12.3", "target 20 x", "quality 1e-3", "memory"):
        assert part in line


def test_json_has_every_field() -> None:
    assert set(msgspec.json.decode(msgspec.json.encode(result()))) >= ISSUED


def test_a_missing_peer_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gensim", None)
    monkeypatch.delitem(sys.modules, "streamer.bench.round", raising=False)
    with pytest.raises(WalkstreamError, match=r"gensim.*walkstream\[bench\]"):
        run.run("round", Options(quick=True), as_json=True)
    assert capsys.readouterr().out == ""


def test_a_peer_answers_a_line_with_a_line_and_its_end_is_told(tmp_path: Path) -> None:
    script = tmp_path / "doubler.py"
    script.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    n = json.loads(line)\n"
        "    if n < 0: sys.exit(4)\n"
        "    print(json.dumps(2 * n), flush=True)\n"
    )
    with peers.running(None, script) as peer:
        assert [peer.ask(n) for n in (1, 21)] == [2, 42]
        with pytest.raises(WalkstreamError, match="doubler ended with 4"):
            peer.ask(-1)


def test_baskets_are_read_from_gzip_too_and_a_line_of_other_columns_is_named(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.tsv.gz"
    log.write_bytes(gzip.compress(b"u\ta\t1\tclick\nv\tb\t2\tclick\nu\tc\t3\tclick\n"))
    assert rounds.baskets(log) == [["a", "c"], ["b"]]
    log.write_bytes(gzip.compress(b"u\ta\t1\tclick\nu,b,2,click\n"))
    with pytest.raises(ConfigError, match="line 2: has not the columns user_id,item_id"):
        rounds.baskets(log)
