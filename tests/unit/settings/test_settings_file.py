"""The annotated file that `walkstream init` writes."""

import tomllib
from pathlib import Path

import pytest

from core.settings import Duration
from streamer.errors import ConfigError
from streamer.settings import file as settings_file
from streamer.settings.load import leaves, load, load_with_origins
from streamer.settings.sections import Config
from tests.unit.cli.test_help import command

TEMPLATE = settings_file.template()
LINES = TEMPLATE.splitlines()
COMMENTED = [i for i, line in enumerate(LINES) if line.startswith("#") and line[1:2] != " "]


def loaded(folder: Path, text: str) -> tuple[Config, dict[str, str]]:
    file = folder / "walkstream.toml"
    file.write_text(text, encoding="utf-8")
    return load_with_origins(file, [], {})


def test_the_file_loads_as_the_defaults(tmp_path: Path) -> None:
    assert loaded(tmp_path, TEMPLATE)[0] == Config()


@pytest.mark.parametrize("at", COMMENTED, ids=lambda at: LINES[at])
def test_each_commented_setting_loads_when_uncommented(tmp_path: Path, at: int) -> None:
    one = [line[1:] if i == at else line for i, line in enumerate(LINES)]
    config, origins = loaded(tmp_path, "\n".join(one))
    new = set(origins) - set(loaded(tmp_path, TEMPLATE)[1])
    assert len(new) == 1
    values, defaults = leaves(config), leaves(Config())
    changed = {key for key in values if values[key] != defaults.get(key)}
    assert changed == {key for key in new if key.startswith(("kafka.", "registry."))}


def test_every_setting_is_in_the_file(tmp_path: Path) -> None:
    text = "\n".join(line[1:] if i in COMMENTED else line for i, line in enumerate(LINES))
    assert set(loaded(tmp_path, text)[1]) >= set(leaves(Config()))


def test_what_most_people_change_comes_first_and_is_active() -> None:
    document = tomllib.loads(TEMPLATE)
    first = ["kafka", "topics", "clicks", "events", "session", "graph", "state"]
    assert list(document)[:7] == first
    assert document["graph"] == {"half_life": "7d"}
    assert document["session"] == {"gap": "30m"}
    assert document["clicks"]["fields"]["user_id"] == "user_id"
    assert document["model"] == {}


def test_each_setting_has_its_meaning_above_it() -> None:
    at = LINES.index("#max_degree = 128")
    assert LINES[at - 1].startswith("# Neighbours kept for an item")
    at = LINES.index('#family = "sign"')
    assert LINES[at - 1].endswith("One of sign, p-stable.")


def test_lines_are_at_most_100_columns() -> None:
    assert max(map(len, LINES)) <= 100


def test_every_setting_and_every_section_of_a_library_has_a_meaning() -> None:
    said = settings_file.meanings()
    tables = ("kafka", "registry", "events.weights", "clicks.fields")
    plain = {key for key in leaves(Config()) if not key.startswith(tuple(f"{t}." for t in tables))}
    assert set(said) == plain | set(tables)
    assert all(text and "\n" not in text for text in said.values())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Duration(1_800_000), '"30m"'),
        (True, "true"),
        (1, "1"),
        (1.0, "1.0"),
        (1e-3, "0.001"),
        ('say "é"\n', '"say \\"é\\"\\n"'),
        ("a\x7fb", r'"a\u007fb"'),
        (("a", "b"), '["a", "b"]'),
    ],
)
def test_values_are_written_as_toml(value: object, text: str) -> None:
    assert settings_file.toml(value) == text


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "walkstream.toml"
    file.write_text("mine")
    with pytest.raises(ConfigError, match=r"walkstream\.toml: is there already; --force"):
        settings_file.run(file, force=False)
    assert file.read_text() == "mine"
    settings_file.run(file, force=True)
    assert load(file, [], {}) == Config()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.*cannot be written: No such file"):
        settings_file.run(tmp_path / "absent" / "walkstream.toml", force=True)


def test_the_command_writes_the_file_once(tmp_path: Path) -> None:
    file = str(tmp_path / "some.toml")
    assert command("init", file).returncode == 0
    again = command("init", file)
    assert again.returncode == 2
    assert again.stderr.startswith(f"walkstream: {file}: is there already")
    assert command("init", file, "--force").returncode == 0


def test_the_command_prints_the_file_on_a_dash() -> None:
    assert command("init", "-").stdout == TEMPLATE
