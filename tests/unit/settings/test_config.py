import re
from pathlib import Path

import pytest

from core.settings import Duration, Settings
from streamer.errors import ConfigError
from streamer.settings import presets
from streamer.settings.load import duration, leaves, load, load_with_origins, spelled, start_time
from streamer.settings.sections import CommitSettings, Config, RoundSettings

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


def test_a_type_can_be_left_out_by_a_weight_of_0(tmp_path: Path) -> None:
    file = written(tmp_path, '[events.weights]\nremove_from_cart = 0\n"*" = 0.0\n')
    weights = load(file, [], {}).events.weights
    assert (weights["remove_from_cart"], weights["*"]) == (0, 0)


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
    names = ("PORT", "METRICS_PORT", "METRICS_SERVICE_HOST", "KAFKA_PORT_9092_TCP")
    environ = {f"WALKSTREAM_{name}": "tcp://10.0.0.1:9470" for name in names}
    assert load(written(tmp_path, ""), [], environ) == Config()


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


@pytest.mark.parametrize("text", ["0", "1ms", "1501ms", "90s", "90m", "36h", "7d", "400d"])
def test_a_spelled_duration_reads_as_the_same(text: str) -> None:
    assert spelled(duration(text)) == text


@pytest.mark.parametrize(
    ("position", "ms"),
    [
        ("earliest", None),
        ("latest", None),
        ("1970-01-01", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T12:00:00", 1_769_860_800_000),
        ("2026-01-31 13:00:00.250+01:00", 1_769_860_800_250),
        ("9999-12-31T23:59:59-23:59", 253_402_387_139_000),
    ],
)
def test_start_times(position: str, ms: int | None) -> None:
    assert start_time(position) == ms


@pytest.mark.parametrize("position", ["", "now", "1769860800000", "12:00:00", "1969-12-31", "-1"])
def test_what_is_no_start_time_is_refused(position: str) -> None:
    with pytest.raises(ValueError, match=r"neither earliest, latest|before 1970"):
        start_time(position)


def test_a_start_time_may_be_a_time_of_toml(tmp_path: Path) -> None:
    file = written(tmp_path, "[start]\nposition = 2026-01-31T12:00:00Z\n")
    assert start_time(load(file, [], {}).start.position) == 1_769_860_800_000


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
        (
            "model.window=wide",
            r"^model\.window: 'wide' is wrong: Expected `int`, got `str` \(from --set\)",
        ),
        ("kafka.group.id=x", r"^kafka\.group\.id: is app\.name: set that instead \(from --set\)"),
        ("kafka.transactional.id=x", r"follows from app\.name and app\.instance"),
        ("kafka.auto.offset.reset=latest", r"is start\.position: set that instead"),
        (
            "kafka.isolation.level=read_uncommitted",
            r"^kafka\.isolation\.level: .*take the line out",
        ),
        ("kafka.enable.idempotence=false", r"^kafka\.enable\.idempotence: exactly-once needs"),
        ("kafka.topic.blacklist=.*", r"^kafka\.topic\.blacklist: would hide topics"),
        ("kafka.error_cb=x", r"^kafka\.error_cb: takes a function"),
        ("kafka.default.topic.config={}", r"^kafka\.default\.topic\.config: takes a function"),
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
        ("events.weights.view=1e-7", r"^events\.weights\.view: .* from 1e-6 to 1e6, or 0"),
        ("events.weights.view=-1", r"^events\.weights\.view: "),
        ("events.weights.*=1e7", r"^events\.weights\.\*: "),
        ("events.weights.view=nan", r"^events\.weights\.view: "),
        ("topics.items=clicks", r"^topics\.items: is the topic of topics\.clicks too"),
        ("topics.items=a b", r"^topics\.items: 'a b' is no topic name"),
        ("topics.min_insync_replicas=2", r"^topics\.min_insync_replicas: "),
        ("app.name=", r"^app\.name: must not be empty"),
        ("metrics.port=70000", r"^metrics\.port: "),
        ("dlq.stop_rate=0.5", r"did you mean dlq\.stop_ratio\?"),
        ("dlq.stop_ratio=0.05", r"^dlq\.stop_ratio: .*at least dlq\.alarm_ratio, which is 0\.1"),
        ("start.position=now", r"^start\.position: 'now' is neither .* \(from --set\)"),
        ("kafka=b:9092", r"^kafka: .*it is a section: write kafka\.name = value"),
        ("registry.=x", r"^registry\.: .*it is a section"),
        ("registy.url=http://r", r"did you mean registry\.url\?"),
        ("clicks.format=avro", r"^registry\.url: is needed for clicks\.format = avro"),
        ("clicks.user_id=uid", r"did you mean clicks\.fields\.user_id\?"),
        (
            "clicks.fields.user=uid",
            r"did you mean clicks\.fields\.user_id\?; the fields of a click are user_id, item_id",
        ),
        ("clicks.fields.xyz=uid", r"^clicks\.fields\.xyz: .*; the fields of a click are user_id"),
        ("clicks.fields.ts=", r"^clicks\.fields\.ts: must not be empty"),
        ("clicks.fields.user_id=", r"^clicks\.fields\.user_id: must not be empty"),
        ("clicks.fields.event_id=@key", r"^clicks\.fields\.event_id: cannot be @key"),
        ("clicks.fields.user_id=@timestamp", r"^clicks\.fields\.user_id: .*which is for ts"),
        ("clicks.fields.item_id=product..sku", r"^clicks\.fields\.item_id: .*product\.sku"),
        ("clicks.fields.item_id=.sku", r"^clicks\.fields\.item_id: .*names with a dot between"),
        ("clicks.fields.ts=@key", r"^clicks\.fields\.ts: cannot be @key, .*user_id and item_id"),
        ("clicks.fields.weight=@timestamp", r"^clicks\.fields\.weight: .*which is for ts"),
        ("clicks.fields.user_id=@header", r"^clicks\.fields\.user_id: .*only @key and @timestamp"),
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


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (["grahp.horizon=1d", "model.window=wide", "lsh.tables=[1]"], 3),
        (["model.dim=7", "lsh.tables=0", "kafka.group.id=x"], 3),
    ],
)
def test_all_wrong_settings_are_told_at_once(
    tmp_path: Path, overrides: list[str], keys: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, ""), overrides, {})
    first, *lines = str(caught.value).splitlines()
    assert first == f"{keys} settings are wrong:"
    told = sorted(line.strip().partition(":")[0] for line in lines)
    assert told == sorted(override.partition("=")[0] for override in overrides)


def test_a_wrong_value_for_a_library_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, "[kafka]\n'sasl.password' = ['hunter2']\n"), [], {})
    assert str(caught.value).startswith("kafka.sasl.password: Expected")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("WALKSTREAM_GRAPH_HALF_LIFE", "WALKSTREAM_GRAPH__HALF_LIFE"),
        ("WALKSTREAM_CLICKS_FIELDS_USER_ID", "WALKSTREAM_CLICKS__FIELDS__USER_ID"),
        ("WALKSTREAM_KAFKA_BOOTSTRAP_SERVERS", "WALKSTREAM_KAFKA__BOOTSTRAP_SERVERS"),
        ("WALKSTREAM_KAFKA_SASL_PASSWORD", "WALKSTREAM_KAFKA__SASL_PASSWORD"),
        ("WALKSTREAM_REGISTRY_BASIC_AUTH_USER_INFO", "WALKSTREAM_REGISTRY__BASIC_AUTH_USER_INFO"),
    ],
)
def test_a_variable_with_one_underscore_too_few_is_refused(
    tmp_path: Path, variable: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{variable}: is no setting; did you mean {meant}\?"):
        load(written(tmp_path, ""), [], {variable: "3d"})
    # What is meant is a setting, though it may not take this value.
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, ""), ["app.name="], {meant: "3d"})
    assert "no such setting" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["SERVICE_HOST", "SERVICE_PORT_TCP_KAFKA", "PORT", "PORT_9092_TCP_ADDR", "ENV_LANG"]
)
def test_what_a_platform_says_of_a_service_called_walkstream_kafka_is_ignored(
    tmp_path: Path, name: str
) -> None:
    assert load(written(tmp_path, ""), [], {f"WALKSTREAM_KAFKA_{name}": "10.0.0.1"}) == Config()


@pytest.mark.parametrize("password", ['"x"', "'x'", " x ", "007", "true", "a=b", '["x"]', "x#y"])
def test_a_password_is_taken_as_it_is(tmp_path: Path, password: str) -> None:
    file = written(tmp_path, "")
    assert load(file, [f"kafka.sasl.password={password}"], {}).kafka["sasl.password"] == password
    variable = {"WALKSTREAM_KAFKA__SASL_PASSWORD": password}
    assert load(file, [], variable).kafka["sasl.password"] == password


def test_blanks_around_the_equals_sign_are_no_part_of_a_value(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), ["kafka.client.id = shop"], {}).kafka["client.id"] == "shop"


def test_brokers_that_are_given_a_password_are_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^kafka\.bootstrap\.servers: .*kafka\.sasl") as caught:
        load(written(tmp_path, ""), ["kafka.bootstrap.servers=me:hunter2@b:9092"], {})
    assert "hunter2" not in str(caught.value)


def test_an_empty_section_of_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^grahp: there is no such setting.*some\.toml"):
        load(written(tmp_path, "[grahp]\n# half_life = '7d'\n[clicks.fields]\n"), [], {})


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
    config, origins = load_with_origins(written(tmp_path, ""), overrides, {})
    assert config == Config()
    assert set(origins) == set(tokens)


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


# -- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.PRESETS)
def test_each_preset_is_a_configuration(name: str) -> None:
    config, origins = load_with_origins(None, [f"preset={name}"], {})
    values = leaves(config)
    for key, value in presets.PRESETS[name].items():
        assert (values[key], origins[key]) == (value, f"preset {name}")
    assert name != "walkstream" or config == Config()


def test_settings_stand_on_top_of_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "walkstream.toml"
    file.write_text('preset = "item2vec"\n[corpus]\nsubsample = 0.01\n')
    config = load(file, ["negatives.kind=uniform"], {})
    assert (config.corpus.kind, config.corpus.session) == ("sessions", "set")
    assert (config.corpus.subsample, config.negatives.kind) == (0.01, "uniform")
    # The last that names one counts.
    assert load(file, [], {"WALKSTREAM_PRESET": "deepwalk"}).corpus.kind == "walks"
    assert load(file, ["preset=node2vec"], {"WALKSTREAM_PRESET": "deepwalk"}).walks.q == 0.5


def test_a_preset_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="preset: 'glove' is none of walkstream, word2vec"):
        load(None, ["preset=glove"], {})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["negatives.kind=mix"], "is a mix: give shares, of uniform, popularity, similar, scored"),
        (["events.impressions=click"], "must not be click: that is what clicks without a type are"),
        (["negatives.similar=0.1"], "is scored, and shares are for a mix: set mix"),
        (["model.alpha=0.75"], "any more: negatives.alpha is it"),
        (["corpus.subsample=2"], "must be at least 0 and at most 1"),
    ],
)
def test_what_a_corpus_or_negatives_cannot_be_is_told(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(None, given, {})
