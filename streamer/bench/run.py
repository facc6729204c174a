"""Runs benches by name, and prints what they find as they find it."""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Literal, get_args

import msgspec

from streamer.bench.results import Options, Result
from streamer.errors import ConfigError

Name = Literal["skipgram", "walks", "graph", "ingest", "index", "round", "scale"]
"""Each is a module of this package with `measure(options) -> Iterator[Result]`."""


def run(name: Name | Literal["all"], options: Options, as_json: bool) -> None:
    """Measure and print. ConfigError if a peer's package is missing."""
    names = get_args(Name) if name == "all" else (name,)
    for one in names:
        print(f"{one}: measuring, which takes some minutes", file=sys.stderr, flush=True)
        for result in _measure(one, options):
            line = msgspec.json.encode(result).decode() if as_json else as_text(result)
            print(line, flush=True)


def _measure(name: str, options: Options) -> Iterator[Result]:
    try:
        module = import_module(f"streamer.bench.{name}")
        yield from module.measure(options)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"bench {name} compares with {error.name}, which is not installed: "
            "pip install 'walkstream[bench]'"
        ) from None


def number(value: float | None) -> str:
    """Three digits that count: 3,610,000, 0.186, 19.4; a dash for none."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    return f"{value:.3g}"


def as_text(r: Result) -> str:
    """A result in one line."""
    text = f"{r.bench} {r.setting}: {number(r.ours)} {r.unit}"
    if r.peer_value is not None:
        text += f", {r.peer} {number(r.peer_value)}, ratio {number(r.ratio)}"
    if r.target is not None:
        text += f" (target {r.target})"
    if r.quality is not None:
        text += f"; quality {r.quality}, peer {r.peer_quality or '-'}"
    return f"{text}; ceiling {r.ceiling}"
