"""The next item in a session, by the protocol of session-rec, on a log of sessions in order.

    .venv/bin/python ops/bench/session_rec.py EVENTS [--slices 5] [--days 30] [--set KEY=VALUE ...]

The log is cut into slices of as many sessions each, and of each slice the last of so many days is
the test: its sessions are asked for every next item, by all items before it, and nothing is learned
from them. Items that the days before do not have are taken out of it, and what is left of one click
(Ludewig, Mauro, Latifi and Jannach, "Empirical analysis of session-based recommendation
algorithms", User Modeling and User-Adapted Interaction 31, 2021). A day is so many sessions, as a
log without times has them. Prints a table for a result file, of means over the slices.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.clicks import Clicks
from core.engine import Engine
from core.rounds import Inputs
from streamer.evaluate.baselines import baselines
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Asked, Model, Ranker, Ranks
from streamer.evaluate.scores import Gains
from streamer.files.log import ClickLog
from streamer.files.readers import Source
from streamer.files.replay import ALL, ROUNDS_PER_COMMIT
from streamer.settings.load import load
from streamer.settings.sections import Config

COLUMNS = ["user_id", "item_id", "ts", "event_type"]
SHARE_OF_SPAN = 4
"""The graph's half-life is the span of a slice divided by this, as in the other results."""


def whole(config: Config, events: Path) -> Clicks:
    """All clicks of a log."""
    log = ClickLog(config, Source([events], COLUMNS, "order"))
    return Clicks.joined([log.decoded(records)[0].clicks for records, _ in log.chunks(100_000)])


def slices(clicks: Clicks, number: int, days: int) -> Iterator[tuple[Clicks, Clicks]]:
    """What to learn from, and the test."""
    users, items = np.array(list(clicks.users)), np.array(list(clicks.items))
    _, first, session = np.unique(users, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[session]  # sessions by their first click
    for part in range(number):
        begin, end = part * len(first) // number, (part + 1) * len(first) // number
        cut = end - (end - begin) // days
        learned = np.flatnonzero((place >= begin) & (place < cut))
        asked = np.flatnonzero((place >= cut) & (place < end))
        asked = asked[np.isin(items[asked], np.unique(items[learned]))]
        yield clicks.at(learned), clicks.at(asked)


def ranks(config: Config, learned: Clicks, asked: Clicks) -> tuple[Ranks, int]:
    """How all rankers do on the test, and how many items they rank."""
    settings = config.engine_settings
    engine, past = Engine(settings), Past(settings)
    for number, part in enumerate(learned.parts(config.round.max_events), 1):
        past.take(part, 0)
        past.learn()
        past.transitions.clear()
        past.touched.clear()
        closes = number % ROUNDS_PER_COMMIT == 0
        engine.step(Inputs(part, closes_commit=closes, room=ALL, budget=ALL))
    model = Model(("next", "hybrid"), settings.model.session_decay)
    rankers: list[Ranker] = [model, *baselines(past, settings)]
    positions = Asked(engine, past, past.take(asked, len(asked)), unseen=False)
    found: Ranks = {}
    for ranker in rankers:
        found |= ranker(positions)
    return found, len(engine.items)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("events", type=Path)
    parser.add_argument("--slices", type=int, default=5)
    parser.add_argument("--days", type=int, default=30, help="of a slice")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    config = load(None, options.overrides, {})
    clicks = whole(config, options.events)
    span = int(clicks.times[-1] - clicks.times[0]) // options.slices
    half_life = f"{span // SHARE_OF_SPAN // 1000}s"
    overrides = [*options.overrides, f"graph.half_life={half_life}", f"major.every={half_life}"]
    config = load(None, overrides, {})
    hr: dict[str, list[float]] = {}
    mrr: dict[str, list[float]] = {}
    for number, (learned, asked) in enumerate(slices(clicks, options.slices, options.days), 1):
        found, items = ranks(config, learned, asked)
        positions = len(next(iter(found.values())))
        print(f"slice {number}: {len(learned):,} clicks, {items:,} items, "
              f"{positions:,} positions", file=sys.stderr)  # fmt: skip
        for name, rank in found.items():
            gains = Gains.of(rank)
            hr.setdefault(name, []).append(float(gains.hr.mean()))
            mrr.setdefault(name, []).append(float(gains.mrr.mean()))
    print("| ranker | HR@20 | MRR@20 |\n|---|---|---|")
    for name in hr:
        print(f"| {name} | {np.mean(hr[name]):.3f} | {np.mean(mrr[name]):.3f} |")


if __name__ == "__main__":
    main()
