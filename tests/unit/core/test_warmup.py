import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from core.settings import ModelSettings, Settings
from core.warmup import warm_up
from streamer import kernels
from streamer.demo.shop import Shop
from streamer.files import replay
from streamer.files.readers import Source
from streamer.settings import load as config

START_MS = 1_700_000_000_000
WARM = """
import os
from core.settings import ModelSettings, Settings
from core.warmup import listening, warm_up

def compiling():
    print("compiling", flush=True)
    os._exit(0)

with listening(compiling):
    warm_up(Settings(model=ModelSettings(dim=16)))
print("ready")
"""


def compiled() -> set[tuple[str, str]]:
    """Kernels of engine and decoder that this process has, with the types they are compiled for."""
    return {
        (f"{module}.{name}", str(signature))
        for module in list(sys.modules)
        if module.startswith(("core.", "streamer.decode."))
        for name, value in vars(sys.modules[module]).items()
        if isinstance(value, Dispatcher)
        for signature in value.signatures
    }


def second_process(**environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WARM], env=os.environ | environment, capture_output=True, text=True
    )
    return done.stdout.strip() or done.stderr


def test_a_warmed_up_engine_compiles_nothing_more(tmp_path: Path) -> None:
    overrides = ["model.dim=16", "graph.half_life=1m", "session.gap=1m", "round.max_events=200"]
    overrides += ["clusters.count=8", "clusters.min_items=40", "major.every=5m"]
    loaded = config.load(None, overrides, {})
    log = tmp_path / "clicks.jsonl"
    for named in (True, False):
        kernels.prepare(loaded.engine_settings)
        before = compiled()
        clicks = list(islice(Shop(1, products=300).clicks(START_MS, rate=1.0), 1000))
        for n, click in enumerate(clicks):
            click.pop("event_id", None)
            if n % 10 == 0:
                click["user_id"] = f"ü{n}"  # escaped: not read by the scanner
            if named:
                click["event_id"] = f"e{n}"
        log.write_text("\n".join(map(json.dumps, clicks)))
        replay.run(loaded, Source([log]), None, tmp_path / str(named), False)
        assert compiled() == before


def test_it_is_told_that_kernels_are_compiled_and_only_if_they_are(tmp_path: Path) -> None:
    warm_up(Settings(model=ModelSettings(dim=16)))  # so that the cache has them
    assert second_process() == "ready"
    assert second_process(NUMBA_CACHE_DIR=str(tmp_path)) == "compiling"
