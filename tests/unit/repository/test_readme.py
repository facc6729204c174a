"""The README's reference tables say what the code says."""

import re
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from streamer.kafka import rights
from streamer.settings.file import meanings, toml
from streamer.settings.sections import Config
from streamer.watch.health import Lag
from streamer.watch.metrics import Metrics

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    """The rows of the table between the marks <!-- name --> and <!-- /name -->."""
    text = README.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    return text.splitlines()[2:]


def settings_rows() -> list[str]:
    config, said = Config(), meanings()
    return [
        f"| `{section.name}.{field.name}` | `{toml(getattr(part, field.name))}` "
        f"| {said[f'{section.name}.{field.name}']} |"
        for section in fields(Config)
        if section.name not in said
        for part in [getattr(config, section.name)]
        for field in fields(part)
    ]


def metrics_rows() -> list[str]:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.identify("shop-0", "walkstream-1")
    metrics.show_lags({("clicks", 0): Lag(0, -1)})
    rows = []
    for family in registry.collect():
        if family.name.startswith("walkstream_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {k for s in family.samples for k in s.labels} - {"le"}
            told = f"`{name}`", family.type, ", ".join(sorted(labels)), family.documentation
            rows.append(f"| {' | '.join(told)} |")
    return rows


def test_the_settings_table_has_every_setting_with_its_default_and_meaning() -> None:
    assert section("settings") == settings_rows()


def test_the_metrics_table_has_every_metric_with_its_help() -> None:
    assert section("metrics") == metrics_rows()


def test_every_file_that_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def rights_rows() -> list[str]:
    rows = []
    for command, wanted in rights.TABLE.items():
        for what, names in wanted.items():
            operation, _, resource = what.partition(" ")
            named = ", ".join(f"`{name}`" for name in names)
            rows.append(f"| `{command}` | {operation} | {resource or rights.TOPIC} | {named} |")
    return rows


def test_the_table_of_rights_is_what_commands_ask_for() -> None:
    assert section("rights") == rights_rows()
