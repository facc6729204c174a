import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Duration, Settings
from streamer.config import duration, load
from streamer.errors import ConfigError
from streamer.settings import CommitSettings, Config, RoundSettings

ROOT = Path(__file__).parents[2]
MINUTE = 60_000


def written(folder: Path, text: str) -> Path:
    file = folder / "some.toml"
    file.write_text(text)
    return file


def test_defaults_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, [], {}) == Config()


def test_set_wins_over_environment_which_wins_over_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[model]\ndim = 32\nwindow = 3\nnegatives = 7\n")
    environ = {"WALKSTREAM_MODEL__DIM": "48", "WALKSTREAM_MODEL__WINDOW": "4"}
    model = load(file, ["model.dim=128"], environ).model
    assert (model.dim, model.window, model.negatives) == (128, 4, 7)


def test_walkstream_toml_of_the_working_directory_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "walkstream.toml").write_text("[log]\nlevel = 'debug'\n")
    monkeypatch.chdir(tmp_path)
    assert load(None, [], {}).log.level == "debug"


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml", [], {})


def test_a_broken_file_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"some\.toml.*line 2"):
        load(written(tmp_path, "[log]\nlevel debug\n"), [], {})


def test_kafka_properties_are_the_same_from_each_source(tmp_path: Path) -> None:
    file = written(tmp_path, '[kafka]\nclient.id = "a"\n"linger.ms" = 5\n')
    environ = {"WALKSTREAM_KAFKA__BOOTSTRAP_SERVERS": "b:9092"}
    assert load(file, ["kafka.sasl.password=007"], environ).kafka == {
        "bootstrap.servers": "b:9092",
        "client.id": "a",
        "linger.ms": 5,
        "sasl.password": "007",
    }


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), ["kafka.sasl.password=hunter2"], {})
    assert config.kafka["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(config)


def test_event_weights_add_to_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "[events.weights]\nrent = 5\nview = 0.5\n")
    weights = load(file, ["events.weights.*=0.1"], {}).events.weights
    assert weights == {"click": 1, "view": 0.5, "cart": 2, "purchase": 3, "rent": 5, "*": 0.1}


@pytest.mark.parametrize("text", ["2", '"2"'])
def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, ""), [f"app.instance={text}"], {}).app.instance == "2"


def test_lists_and_booleans_come_from_text(tmp_path: Path) -> None:
    config = load(
        written(tmp_path, ""), ['items.use=["brand"]'], {"WALKSTREAM_TOPICS__CHECK": "false"}
    )
    assert config.items.use == ("brand",)
    assert config.topics.check is False


def test_variables_of_container_platforms_are_ignored(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), [], {"WALKSTREAM_PORT": "tcp://10.0.0.1:9470"}) == Config()


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        ("30m", 30 * MINUTE),
        ("14d", 14 * 24 * 60 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("500ms", 500),
        ("1.5s", 1500),
        ("1w", 7 * 24 * 60 * MINUTE),
        ("0", 0),
        ("90", 90_000),
        (90, 90_000),
        (0.25, 250),
    ],
)
def test_durations(value: object, ms: int) -> None:
    assert duration(value) == ms
    assert isinstance(duration(value), Duration)


@pytest.mark.parametrize(
    "value", ["", "soon", "5 minutes", "m", "-5s", -1, True, [1], "nan", "1e9d"]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(value)


def test_a_duration_is_read_from_each_source(tmp_path: Path) -> None:
    file = written(tmp_path, "[graph]\nhalf_life = '2d'\n[session]\ngap = 60\n")
    config = load(file, ["graph.horizon=20d"], {"WALKSTREAM_MAJOR__EVERY": "1h"})
    spans = (config.graph.half_life, config.session.gap, config.graph.horizon, config.major.every)
    assert spans == (2 * 1440 * MINUTE, MINUTE, 20 * 1440 * MINUTE, 60 * MINUTE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("graph.half_life=soon", r"^graph\.half_life: 'soon' is no duration"),
        ("graph.half_lif=3d", r"^graph\.half_lif: .*did you mean graph\.half_life\?"),
        ("model.half_life=3d", r"did you mean graph\.half_life\?"),
        ("dim=3", r"^dim: .*did you mean model\.dim\?"),
        ("xyz.abc=3", r"^xyz\.abc: .*sections are app, kafka"),
        ("graph=3", r"^graph: there is no such setting"),
        ("events.weights=3", r"^events\.weights: "),
        ("kafka.bootstrap", r"kafka\.bootstrap: write --set section\.key=value"),
        ("lsh.family=cosine", r"^lsh\.family: 'cosine' is none of sign, p-stable"),
        ("model.window=wide", r"^model\.window: Expected `int`, got `str` \(from --set\)"),
        ("graph.max_degree=100", r"^graph\.max_degree: .*power of two"),
        ("graph.max_degree=2048", r"^graph\.max_degree: "),
        ("model.dim=100", r"^model\.dim: .*multiple of 16"),
        ("walks.length=1", r"^walks\.length: must be at least 2"),
        ("walks.replay=-1", r"^walks\.replay: must be at least 0"),
        ("walks.replay=nan", r"^walks\.replay: "),
        ("model.rate=inf", r"^model\.rate: must be more than 0"),
        ("model.block=33", r"^model\.block: must be at least 1 and at most 32"),
        ("lsh.bits=65", r"^lsh\.bits: must be from 1 to 64 for the sign family"),
        ("lsh.tables=0", r"^lsh\.tables: "),
        ("graph.half_life=0", r"^graph\.half_life: must be more than 0"),
        ("clusters.min_items=3", r"^clusters\.min_items: "),
        ("events.weights.view=0", r"^events\.weights\.view: "),
        ("events.weights.view=nan", r"^events\.weights\.view: "),
        ("topics.items=clicks", r"^topics\.items: is the topic of topics\.clicks too"),
        ("topics.items=a b", r"^topics\.items: 'a b' is no topic name"),
        ("topics.min_insync_replicas=2", r"^topics\.min_insync_replicas: "),
        ("app.name=", r"^app\.name: must not be empty"),
        ("metrics.port=70000", r"^metrics\.port: "),
    ],
)
def test_an_error_names_the_key(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(written(tmp_path, ""), [override], {})


def test_an_error_tells_which_variable_or_file_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"WALKSTREAM_MODEL__DIM"):
        load(written(tmp_path, ""), [], {"WALKSTREAM_MODEL__DIM": "7"})
    with pytest.raises(ConfigError, match=r"some\.toml"):
        load(written(tmp_path, "[model]\ndim = 7\n"), [], {})


def test_p_stable_codes_have_fewer_bits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^lsh\.bits: must be from 1 to 16"):
        load(written(tmp_path, ""), ["lsh.family=p-stable", "lsh.bits=17"], {})


def test_rounds_by_count_make_commits_by_count() -> None:
    assert Config(round=RoundSettings(max_seconds=0)).commit.rounds == 1
    given = Config(round=RoundSettings(max_seconds=0), commit=CommitSettings(rounds=5))
    assert given.commit.rounds == 5
    assert Config().commit.rounds == 0


def test_engine_settings_are_the_sections_of_the_engine(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), ["walks.length=20", "lsh.tables=4"], {})
    assert isinstance(config.engine_settings, Settings)
    assert config.engine_settings.walks.length == 20
    assert config.engine_settings.lsh is config.lsh


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer.cli", *arguments],
        cwd=ROOT,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "name", ["worker", "replay", "publish", "query", "inspect", "demo", "topics create"]
)
def test_help_shows_how_to_call_each_command(name: str) -> None:
    done = command(*name.split(), "--help")
    assert done.returncode == 0
    assert f"$ walkstream {name}" in done.stdout


def test_help_imports_neither_numba_nor_kafka() -> None:
    script = (
        "import sys\n"
        "from streamer.cli import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', {'numba', 'confluent_kafka', 'rocksdict'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "LOADED set()" in done.stdout


def test_a_wrong_setting_ends_a_command_with_one_line_and_exit_code_2() -> None:
    done = command("topics", "check", "--set", "graph.halflife=3d")
    assert done.returncode == 2
    assert done.stderr.startswith("walkstream: graph.halflife: ")
    assert len(done.stderr.splitlines()) == 1
