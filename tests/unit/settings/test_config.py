"""Where settings come from, and which of these counts."""

from pathlib import Path

import pytest

from core.settings import Duration, Settings
from streamer.settings.load import leaves, load, load_with_origins, spelled
from streamer.settings.sections import CommitSettings, Config, RoundSettings
from tests.unit.settings.files import written


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
    config = load(written(tmp_path), ["kafka.sasl.password=hunter2"], {})
    assert config.kafka["sasl.password"] == "hunter2"
    assert "hunter2" not in repr(config)


def test_event_weights_add_to_the_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "[events.weights]\nrent = 5\nview = 0.5\n")
    weights = load(file, ["events.weights.*=0.1"], {}).events.weights
    assert weights == {"click": 1, "view": 0.5, "cart": 2, "purchase": 3, "rent": 5, "*": 0.1}


def test_a_type_can_be_left_out_by_a_weight_of_0(tmp_path: Path) -> None:
    file = written(tmp_path, '[events.weights]\nremove_from_cart = 0\n"*" = 0.0\n')
    weights = load(file, [], {}).events.weights
    assert (weights["remove_from_cart"], weights["*"]) == (0, 0)


@pytest.mark.parametrize("text", ["2", '"2"'])
def test_text_that_looks_like_a_number_stays_text(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path), [f"app.instance={text}"], {}).app.instance == "2"


def test_lists_and_booleans_come_from_text(tmp_path: Path) -> None:
    config = load(written(tmp_path), ['items.use=["brand"]'], {"WALKSTREAM_TOPICS__CHECK": "false"})
    assert config.items.use == ("brand",)
    assert config.topics.check is False


def test_variables_of_container_platforms_are_ignored(tmp_path: Path) -> None:
    names = ("PORT", "METRICS_PORT", "METRICS_SERVICE_HOST", "KAFKA_PORT_9092_TCP")
    environ = {f"WALKSTREAM_{name}": "tcp://10.0.0.1:9470" for name in names}
    assert load(written(tmp_path), [], environ) == Config()


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT_TCP_KAFKA", "PORT", "PORT_9092_TCP_ADDR", "ENV_LANG"]
)
def test_what_a_platform_says_of_a_service_called_walkstream_kafka_is_ignored(
    tmp_path: Path, name: str
) -> None:
    assert load(written(tmp_path), [], {f"WALKSTREAM_KAFKA_{name}": "10.0.0.1"}) == Config()


@pytest.mark.parametrize("password", ['"x"', "'x'", " x ", "007", "true", "a=b", '["x"]', "x#y"])
def test_a_password_is_taken_as_it_is(tmp_path: Path, password: str) -> None:
    file = written(tmp_path)
    assert load(file, [f"kafka.sasl.password={password}"], {}).kafka["sasl.password"] == password
    variable = {"WALKSTREAM_KAFKA__SASL_PASSWORD": password}
    assert load(file, [], variable).kafka["sasl.password"] == password


def test_blanks_around_the_equals_sign_are_no_part_of_a_value(tmp_path: Path) -> None:
    assert load(written(tmp_path), ["kafka.client.id = shop"], {}).kafka["client.id"] == "shop"


def test_fields_of_a_foreign_topic_are_mapped_one_by_one(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "[clicks]\nformat = 'avro'\n[registry]\nurl = 'http://r'\n[clicks.fields]\n"
        "user_id = '@key'\nitem_id = 'product.sku'\nts = '@timestamp'\nweight = ''\n",
    )
    environ = {"WALKSTREAM_CLICKS__FIELDS__EVENT_TYPE": "kind"}
    assert load(file, [], environ).clicks.fields == {
        "user_id": "@key",
        "item_id": "product.sku",
        "ts": "@timestamp",
        "event_type": "kind",
        "weight": "",
        "event_id": "event_id",
    }


def test_origins_tell_what_set_a_value_last(tmp_path: Path) -> None:
    file = written(tmp_path, "[model]\ndim = 32\nwindow = 3\n[events.weights]\nrent = 2\n")
    environ = {"WALKSTREAM_MODEL__WINDOW": "4", "WALKSTREAM_KAFKA__CLIENT_ID": "a"}
    config, origins = load_with_origins(file, ["lsh.tables=4", "round.max_seconds=0"], environ)
    assert origins == {
        "model.dim": str(file),
        "model.window": "WALKSTREAM_MODEL__WINDOW",
        "events.weights.rent": str(file),
        "kafka.client.id": "WALKSTREAM_KAFKA__CLIENT_ID",
        "lsh.tables": "--set",
        "round.max_seconds": "--set",
        "commit.rounds": "round.max_seconds",
    }
    assert leaves(config)["commit.rounds"] == 1


def test_every_leaf_can_be_set_by_its_key(tmp_path: Path) -> None:
    tokens = {
        key: spelled(value) if isinstance(value, Duration) else str(value).lower()
        for key, value in leaves(Config()).items()
        if not isinstance(value, tuple)
    }
    overrides = [f"{key}={token}" for key, token in tokens.items()]
    config, origins = load_with_origins(written(tmp_path), overrides, {})
    assert config == Config()
    assert set(origins) == set(tokens)


def test_rounds_by_count_make_commits_by_count() -> None:
    assert Config(round=RoundSettings(max_seconds=0)).commit.rounds == 1
    given = Config(round=RoundSettings(max_seconds=0), commit=CommitSettings(rounds=5))
    assert given.commit.rounds == 5
    assert Config().commit.rounds == 0


def test_engine_settings_are_the_sections_of_the_engine(tmp_path: Path) -> None:
    config = load(written(tmp_path), ["walks.length=20", "lsh.tables=4"], {})
    assert isinstance(config.engine_settings, Settings)
    assert config.engine_settings.walks.length == 20
    assert config.engine_settings.lsh is config.lsh
