"""Runs the kernels on made-up inputs: `ops/bounds`, a process of its own with NUMBA_BOUNDSCHECK=1.

An index out of its array is then an IndexError. What kernels are told by other arrays (slots in
rows, places in the pool, sessions) is looked at besides, after every round.
"""

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from random import Random

import numba as nb
import numpy as np

from core.engine import Engine
from core.graph.graph import NEVER
from core.graph.slabs import UNIT
from core.graph.walks import walk
from core.placing.lsh import Lsh
from core.rounds import Inputs
from core.settings import LshSettings
from streamer.decode.events import Decoder
from streamer.evaluate import run as evaluate
from streamer.evaluate.run import Options
from streamer.files import replay
from streamer.files.readers import Source
from streamer.query.index import Index, Mode
from streamer.settings import load
from streamer.settings.sections import ClickSettings, EventSettings
from streamer.state.store import Store
from tests.property.strategies import HORIZON, LEAPS, START_MS, Click, small_settings, to_clicks

ROUNDS, SIZE = 40, 60


@nb.njit
def _beyond(x):  # type: ignore[no-untyped-def]
    return x[len(x)]


def clicks(rng: Random, now: int) -> list[Click]:
    """Clicks of few users on few items, some of them late by up to a horizon."""
    out: list[Click] = []
    for _ in range(rng.randrange(SIZE)):
        now += rng.choice(LEAPS) if rng.random() < 0.05 else rng.choice([0, 1, 100])
        time = now - rng.choice([0, 0, 0, 600, HORIZON])
        event_id = rng.choice([0, 0, 1, 2])
        user, item = f"u{rng.randrange(6)}", f"i{rng.randrange(30)}"
        out.append((user, item, time, rng.choice([1.0, 0.25]), event_id))
    return out


def check(engine: Engine) -> None:
    """Assert that every index that a kernel will read is one of what it points into."""
    g, rows, sessions = engine.graph, engine.model.rows, engine.sessions
    known, used = len(engine.vocabulary), int(g.heads[0])
    assert used * UNIT <= len(g.nbr) == len(g.wgt)
    assert known <= len(g.degree) <= len(rows.v)
    for slot in np.flatnonzero(g.degree).tolist():
        assert g.degree[slot] <= min(g.max_degree, UNIT << int(g.size_class[slot]))
        assert g.start[slot] + (1 << int(g.size_class[slot])) <= used
        nbr, _ = g.row(slot)
        assert ((nbr >= 0) & (nbr < known) & (g.last_seen[nbr] != NEVER)).all()
    assert ((rows.attrs >= -1) & (rows.attrs < known)).all()
    assert ((sessions.items >= 0) & (sessions.items < max(known, 1))).all()
    assert (sessions.size <= sessions.items.shape[1]).all()


def drive_engine() -> None:
    rng, now = Random(1), START_MS
    settings = small_settings(attribute_slots=2, max_events=20, against="similar", corpus="both")
    engine = Engine(settings, partitions=2)
    stored: dict[bytes, bytes] = {}
    for number in range(ROUNDS):
        rows = clicks(rng, now)
        now = max([now, *(time for _, _, time, _, _ in rows)])
        item = f"i{rng.randrange(40)}"
        told = rng.choice([None, ["a=1"], ["a=1", f"b={rng.randrange(9)}"]])
        changes = engine.step(Inputs(to_clicks(rows), [(item, told)])).changes
        assert changes is not None
        check(engine)
        for gone in changes.gone:
            stored.pop(gone.key, None)
        stored |= zip(changes.keys, (row.tobytes() for row in changes.rows), strict=True)
        walk(engine.graph, engine.items, 6, 1, number, 0.25, 4.0)
    packed = np.frombuffer(b"".join(stored.values()), engine.model.dtype)
    restored = Engine(settings, partitions=2)
    restored.load_rows([(list(stored), packed)])
    restored.step(Inputs(to_clicks(clicks(rng, now))))
    check(restored)


def drive_lsh() -> None:
    x = np.random.default_rng(1).standard_normal((50, 16)).astype(np.float32)
    for family in ("sign", "p-stable"):
        lsh = Lsh.create(LshSettings(family=family, tables=3, bits=4), 16, 1)
        keys = lsh.keys(x)
        lsh.keys(np.roll(x, 1, 0), keys, np.arange(50) % 2 == 0)
        for extra in (0, 3, 100):
            lsh.probes(x[0], extra)


def drive_decoder() -> None:
    rng = Random(3)
    good = json.dumps({"user_id": "u", "item_id": 7, "ts": 1.5, "event_id": "e\\u00e9", "x": [{}]})
    decoder = Decoder(ClickSettings(), EventSettings())
    values = [good.encode(), b"[" + good.encode() + b"]", b"", b"{", b'{"user_id":"']
    for _ in range(300):
        value = bytearray(good.encode() + rng.choice([b"", b"\n", b"\n{}", b"\xff"]))
        for _ in range(rng.randrange(4)):
            value[rng.randrange(len(value))] = rng.choice(b'{}[]",:\\ \n0-.eE\xc3\xa9u')
        values.append(bytes(value[: rng.randrange(len(value) + 1)]))
    decoder([None] * len(values), values, [-1] * len(values))


def drive_files() -> None:
    """`evaluate` and `replay` of clicks that lag, and queries of what the replay learned."""
    rng, now = Random(4), START_MS
    lines = []
    for _ in range(12):
        rows = clicks(rng, now)
        now = max([now, *(time for _, _, time, _, _ in rows)])
        lines += [f"{user}\t{item}\t{time}\n" for user, item, time, _, _ in rows]
    overrides = ["model.dim=16", "session.gap=500ms", "graph.half_life=1s", "round.max_events=7"]
    config = load.load(None, overrides, {})
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder) / "log.tsv", Path(folder) / "out"
        log.write_text("".join(lines))
        source = Source([log], ["user_id", "item_id", "ts"])
        for unseen in (False, True):
            evaluate.run(config, source, Options("all", "batch", True, unseen, 99, 0.0, True, None))
        replay.run(config, source, None, out, False)
        with closing(Store(out / replay.DIRECTORY)) as store:
            index = Index(store, resident=True)
            keys, _ = store.all_rows()
            modes: tuple[Mode, ...] = ("similar", "next", "hybrid")
            for mode in modes:
                index.neighbours([keys[0].decode()], 3, mode)


if __name__ == "__main__":
    try:
        _beyond(np.zeros(1))
    except IndexError:
        pass
    else:
        sys.exit("indices are not checked: set NUMBA_BOUNDSCHECK=1")
    drive_engine()
    drive_lsh()
    drive_decoder()
    drive_files()
    print("checked")
