"""What crashes cost in quality: `walkstream evaluate` of a log, and of the same with crashes.

    .venv/bin/python ops/bench/crashes.py EVENTS [--crashes 20] [--set KEY=VALUE ...]

A crash comes right after a commit: what is left of the engine is what a worker finds then, the
rows as they were last written, and the graph and sessions as evidence makes them again to the bit.
Prints a table for a result file.
"""

import argparse
from pathlib import Path

from core.engine import Engine
from core.graph.written import Snapshot, load_nodes, load_sessions, nodes
from core.rows import from_values, to_values
from streamer.evaluate.report import Report
from streamer.evaluate.rounds import Round
from streamer.evaluate.run import Evaluation, Options
from streamer.files.readers import Source
from streamer.settings import load

COLUMNS = ["user_id", "item_id", "ts", "event_type"]


class Crashing(Evaluation):
    """An evaluation whose engine is made anew now and then, from what was written."""

    rows: dict[bytes, bytes]
    report: Report
    every = 0
    """Commits between crashes; 0 for none."""
    commits = crashes = again = 0

    def _round(self, taken: Round) -> None:
        super()._round(taken)
        changes = self.changes
        if changes is None:
            return
        self.rows |= zip(changes.keys, to_values(changes.rows), strict=True)
        for gone in changes.gone:
            self.rows.pop(gone.key, None)
        self.commits += 1
        if self.every and self.commits % self.every == 0:
            self._crash()

    def _crash(self) -> None:
        old = self.engine
        new = Engine(old.settings)
        vars(new.clock).update(vars(old.clock))
        new.round_number = old.round_number
        new.placement, new.starts.major, new.versions = (
            old.placement,
            old.starts.major,
            old.versions,
        )
        load_nodes(new.catalogue, nodes(old.catalogue, old.items, 0, old.scale), 0, old.scale)
        load_sessions(new.catalogue, [Snapshot(old.catalogue).part(0, 1 << 40)])
        new.catalogue.admission.load([old.catalogue.admission.entries()])
        values = from_values(list(self.rows.values()), old.model.dtype)
        new.load_rows([(list(self.rows), values)])
        self.crashes, self.again = self.crashes + 1, self.again + len(new.starts.behind)
        self.engine = new


def run(events: Path, every: int, settings: list[str]) -> Crashing:
    config = load.load(None, settings, {})
    options = Options("all", None, False, False, 256, 0.5, False, None)
    one = Crashing(config, Source([events], columns=COLUMNS), options)
    one.rows, one.every = {}, every
    one.report = one.run()
    return one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", type=Path)
    parser.add_argument("--crashes", type=int, default=20)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    calm = run(given.events, 0, given.set)
    rough = run(given.events, max(1, calm.commits // (given.crashes + 1)), given.set)
    print(f"{calm.commits} commits; {rough.crashes} crashes, after which {rough.again:,} items")
    print("were walked from once more\n")
    print("| ranker | HR@20 | MRR@20 | HR@20 with crashes | MRR@20 with crashes |")
    print("|---|---|---|---|---|")
    both = [{f.ranker: f for f in one.report.figures if f.of == "all"} for one in (calm, rough)]
    for name, a in both[0].items():
        b = both[1][name]
        error = f" ± {a.hr_error:.4f}"
        print(f"| {name} | {a.hr:.4f}{error} | {a.mrr:.4f} | {b.hr:.4f} | {b.mrr:.4f} |")


if __name__ == "__main__":
    main()
