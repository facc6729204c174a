"""What is said of settings that are wrong."""

from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings.load import load
from tests.unit.settings.files import written


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load(tmp_path / "absent.toml", [], {})


def test_a_broken_file_is_named_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"some\.toml.*line 2"):
        load(written(tmp_path, "[log]\nlevel debug\n"), [], {})


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
        load(written(tmp_path), [override], {})


def test_an_error_tells_which_variable_or_file_was_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"WALKSTREAM_MODEL__DIM"):
        load(written(tmp_path), [], {"WALKSTREAM_MODEL__DIM": "7"})
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
        load(written(tmp_path), overrides, {})
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
        load(written(tmp_path), [], {variable: "3d"})
    # What is meant is a setting, though it may not take this value.
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path), ["app.name="], {meant: "3d"})
    assert "no such setting" not in str(caught.value)


def test_brokers_that_are_given_a_password_are_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^kafka\.bootstrap\.servers: .*kafka\.sasl") as caught:
        load(written(tmp_path), ["kafka.bootstrap.servers=me:hunter2@b:9092"], {})
    assert "hunter2" not in str(caught.value)


def test_an_empty_section_of_a_wrong_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^grahp: there is no such setting.*some\.toml"):
        load(written(tmp_path, "[grahp]\n# half_life = '7d'\n[clicks.fields]\n"), [], {})


def test_p_stable_codes_have_fewer_bits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^lsh\.bits: must be from 1 to 16"):
        load(written(tmp_path), ["lsh.family=p-stable", "lsh.bits=17"], {})
