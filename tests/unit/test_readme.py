"""The README's reference tables say what the code says."""

import ast
import re
from dataclasses import fields
from pathlib import Path

from prometheus_client import CollectorRegistry

from core.settings import Duration
from streamer.metrics import Metrics
from streamer.settings import Config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(name: str) -> list[str]:
    """The rows of the table between the marks <!-- name --> and <!-- /name -->."""
    text = README.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    return text.splitlines()[2:]


def docstrings() -> dict[tuple[str, str], str]:
    """The text below each field of the settings classes, by class and field."""
    out = {}
    for path in ("core/settings.py", "streamer/settings.py"):
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                for field, text in zip(node.body, node.body[1:], strict=False):
                    if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                        said = ast.literal_eval(text.value)
                        out[node.name, ast.unparse(field.target)] = " ".join(said.split())
    return out


def shown(value: object) -> str:
    if isinstance(value, Duration):
        units = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"))
        return next((f"{value // ms}{u}" for ms, u in units if value and value % ms == 0), "0")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{v}"' for v in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{k} = {v if isinstance(v, str) else f'{v:g}'}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def settings_rows() -> list[str]:
    config, said = Config(), docstrings()
    return [
        f"| `{section.name}.{field.name}` | `{shown(getattr(part, field.name))}` "
        f"| {said[type(part).__name__, field.name]} |"
        for section in fields(Config)
        if section.name not in ("kafka", "registry")
        for part in [getattr(config, section.name)]
        for field in fields(part)
    ]


def metrics_rows() -> list[str]:
    registry = CollectorRegistry()
    Metrics(registry).lag.labels("clicks", "0")
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
