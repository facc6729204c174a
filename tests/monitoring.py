"""A real Prometheus beside a worker, and the queries of `ops/grafana` and `ops/prometheus`."""

import json
import math
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from broker import free_port

from tests import absent

ROOT = Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "ops" / "grafana" / "walkstream.json"
DATASOURCES = ROOT / "ops" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
RULES = ROOT / "ops" / "prometheus"
START_SECONDS = 30.0
WINDOW = "5s"
"""For `$__rate_interval`: five scrapes."""

Labels = Mapping[str, str]


class Unavailable(Exception):
    """This machine has not got the program; the message says what is missing."""


def program(name: str, package: str) -> tuple[Path, dict[str, str]]:
    """A program and the environment it needs: from the PATH, else from its Debian package.

    The package is unpacked into `.venv/debian`; the system stays as it is. Raises `Unavailable`.
    """
    if found := shutil.which(name):
        return Path(found), dict(os.environ)
    root = _unpacked(package)
    # Debian's Python programs find their libraries beside those of the system.
    libraries = {"PYTHONPATH": str(root / "usr" / "lib" / "python3" / "dist-packages")}
    return root / "usr" / "bin" / name, os.environ | libraries


def needed(name: str, package: str) -> tuple[Path, dict[str, str]]:
    """As `program`; where there is none the test is skipped, but fails on a CI machine with apt."""
    try:
        return program(name, package)
    except Unavailable as reason:
        absent.skip(name, reason, shutil.which("apt-get") is not None)


def _unpacked(package: str) -> Path:
    """The folder of a Debian package and of what it depends on and the system has not got."""
    target = ROOT / ".venv" / "debian" / package
    if target.is_dir():
        return target
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Unavailable(f"no {package} on the PATH, and no apt-get to fetch it")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete, so that a broken download is never taken for the package.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        folder = Path(name)
        lists, archives, root = folder / "lists", folder / "archives", folder / "root"
        for needed in (lists / "partial", archives / "partial", root):
            needed.mkdir(parents=True)
        apt = ["apt-get", "-q", "-y", "-o", f"Dir::State::lists={lists}"]
        apt += ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
        # Lists and archives of our own lie where apt's own user may not write.
        apt += ["-o", "APT::Sandbox::User=", "-o", "Dir::Cache::pkgcache="]
        apt += ["-o", "Dir::Cache::srcpkgcache="]
        _run([*apt, "update"])
        _run([*apt, "install", "--download-only", "--no-install-recommends", package])
        for archive in archives.glob("*.deb"):
            _run(["dpkg", "-x", str(archive), str(root)])
        root.rename(target)
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"`{' '.join(command)}` failed: {done.stderr[-500:]}")


@dataclass(frozen=True)
class Query:
    """One expression of a panel, ready to be evaluated."""

    panel: str
    unit: str
    legend: str
    expr: str


def queries(window: str = WINDOW) -> list[Query]:
    """Every expression of the dashboard, for all workers and with rates over `window`."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", window).replace("$instance", ".*")
            unit = panel["fieldConfig"]["defaults"]["unit"]
            found.append(Query(panel["title"], unit, target["legendFormat"], expr))
    return found


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard that show something; rows only hold titles."""
    return [p for p in dashboard()["panels"] if p["type"] != "row"]


class Prometheus:
    """A Prometheus with the rules of `ops/prometheus` that scrapes one worker each second."""

    def __init__(self, folder: Path, worker_port: int) -> None:
        path, self._environ = program("prometheus", "prometheus")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(RULES / "alerts.yml", folder)
        config = (RULES / "prometheus.yml").read_text()
        # Prometheus asks a name server, which knows nothing of this machine.
        found = "dns_sd_configs:\n      - names: [worker]\n        type: A\n        port: 9470\n"
        for shipped, here in {
            "scrape_interval: 5s": "scrape_interval: 1s",
            "evaluation_interval: 15s": "evaluation_interval: 1s",
            f"{found}        refresh_interval: 5s": (
                f'static_configs:\n      - targets: ["127.0.0.1:{worker_port}"]'
            ),
        }.items():
            assert shipped in config, f"prometheus.yml has no `{shipped}`"
            config = config.replace(shipped, here)
        file = folder / "prometheus.yml"
        file.write_text(config)
        address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{address}"
        self._log = folder / "prometheus.log"
        self._command = [
            str(path),
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
        ]

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise RuntimeError(f"Prometheus did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(START_SECONDS)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def query(self, expr: str) -> list[tuple[Labels, float]]:
        """Labels and value of each series now."""
        result = self._get("query", {"query": expr})["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def value(self, expr: str) -> float:
        """The value of an expression that gives one series; NaN where it gives none."""
        found = self.query(expr)
        assert len(found) <= 1, f"{expr} gives {len(found)} series: {found}"
        return found[0][1] if found else math.nan

    def history(
        self, expr: str, begin: float, end: float, step: float
    ) -> list[tuple[Labels, list[float], list[float]]]:
        """Labels, times (s) and values of each series from `begin` to `end`, unix seconds."""
        asked = {"query": expr, "start": f"{begin}", "end": f"{end}", "step": f"{step}"}
        return [
            (s["metric"], [float(t) for t, _ in s["values"]], [float(v) for _, v in s["values"]])
            for s in self._get("query_range", asked)["result"]
        ]

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Each alert rule by name: its expression is `query`; while it is false, `state` is
        `inactive`."""
        groups = self._get("rules", {"type": "alert"})["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def _get(self, what: str, asked: Mapping[str, str]) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {json.load(error)['error']}") from None
