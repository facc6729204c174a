"""What operators are given beside the program: compose file, alert rules, dashboard."""

import re
import socket
import subprocess

import pytest
from prometheus_client import CollectorRegistry

from streamer.settings.load import load
from streamer.watch.metrics import Metrics
from tests.monitoring import DATASOURCES, ROOT, RULES, dashboard, needed, panels, queries

COMPOSE = ROOT / "docker-compose.yml"
ALERTS = (RULES / "alerts.yml").read_text()


def run(name: str, package: str, *arguments: str) -> str:
    path, environ = needed(name, package)
    done = subprocess.run([path, *arguments], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def declared() -> set[str]:
    """Names of all metrics of a worker, as Prometheus shows them."""
    registry = CollectorRegistry()
    Metrics(registry)
    suffix = {"counter": "_total", "histogram": "_bucket"}
    return {family.name + suffix.get(family.type, "") for family in registry.collect()}


def used(text: str) -> set[str]:
    return set(re.findall(r"\b(?:walkstream|process)_[a-z_]+", text))


def test_docker_compose_accepts_the_file_and_nothing_listens_beyond_this_machine() -> None:
    resolved = run("docker-compose", "docker-compose", "--profile", "demo", "config")
    services = re.findall(r"^  (\w+):$", resolved.partition("\nvolumes:")[0], re.MULTILINE)
    wanted = {"kafka", "topics", "worker", "publisher", "prometheus", "grafana"}
    assert wanted <= set(services)
    lines = COMPOSE.read_text().splitlines()
    ports = [line.strip() for line in lines if line.strip().startswith("ports:")]
    assert len(ports) == 4
    assert all(re.fullmatch(r'ports: \["127\.0\.0\.1:\d+(-\d+)?:\d+"\]', port) for port in ports)
    for image in re.findall(r"image: (.*)", COMPOSE.read_text()):
        assert re.search(r":(v?\d+\.\d+\.\d+|local)$", image), f"{image} is not pinned"


def test_the_workers_of_the_compose_file_differ_in_name_and_folder_and_all_are_scraped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = COMPOSE.read_text().partition("\nservices:\n")[2]
    worker = services.partition("\n  worker:\n")[2].partition("\n\n")[0]
    scale = re.search(r"^    scale: (\d+)$", worker, re.MULTILINE)
    first, last = re.findall(r'"127\.0\.0\.1:(\d+)-(\d+):9470"', worker)[0]
    assert scale is not None
    assert 1 < int(scale[1]) <= int(last) - int(first) + 1
    assert "container_name" not in worker
    assert "hostname" not in worker
    scraped = (RULES / "prometheus.yml").read_text()
    assert "dns_sd_configs" in scraped
    assert "names: [worker]" in scraped
    assert "port: 9470" in scraped
    told = set()
    for name in "one", "two":
        monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
        config = load(ROOT / "ops" / "image" / "walkstream.toml", [], {})
        told.add((config.app.instance, config.state.dir))
    assert told == {("one", "state/one"), ("two", "state/two")}


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    run("promtool", "prometheus", "check", "config", str(RULES / "prometheus.yml"))


def test_each_alert_fires_in_trouble_and_only_then() -> None:
    run("promtool", "prometheus", "test", "rules", str(RULES / "alerts_test.yml"))


def test_each_alert_is_tried_and_says_what_to_do() -> None:
    rules = ALERTS.split("- alert: ")[1:]
    tried = (RULES / "alerts_test.yml").read_text()
    for rule in rules:
        name = rule.splitlines()[0]
        assert f'alertname="{name}"' in tried
        assert re.search(r"severity: (warning|critical)", rule), name
        assert re.search(r'^ +summary: ".+"$', rule, re.MULTILINE), name
        assert re.search(r'^ +runbook: ".{40,}"$', rule, re.MULTILINE), name


def test_alerts_name_only_metrics_that_a_worker_has() -> None:
    expressions = re.sub(r'(summary|runbook): ".*"', "", ALERTS)
    assert used(expressions) <= declared()


def test_every_metric_of_walkstream_is_on_the_dashboard_and_no_other() -> None:
    shown = used(" ".join(query.expr for query in queries()))
    own = {name for name in declared() if name.startswith("walkstream_")}
    assert own <= shown
    assert shown <= declared()


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_a_panel_has_a_title_a_unit_a_description_and_the_provisioned_datasource(
    panel: dict[str, object],
) -> None:
    assert panel["title"]
    assert str(panel["description"]).endswith(".")
    found = re.findall(r"'uid': '(.*?)'", str(panel))
    assert found
    assert set(found) == set(re.findall(r"uid: (.*)", DATASOURCES.read_text()))
    assert "'unit': '" in str(panel["fieldConfig"])


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        assert all(x < 24 for x, _ in own), panel["title"]
        cells |= own
