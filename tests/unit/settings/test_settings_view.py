"""What `walkstream config` prints."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from core.settings import Duration
from streamer.errors import ConfigError
from streamer.settings import view as settings_view
from streamer.settings.load import duration, leaves, load
from streamer.settings.secrets import masked
from streamer.settings.sections import Config
from tests.unit.cli.test_help import command

CANARY = "hunter2"


def shown(
    capsys: pytest.CaptureFixture[str], folder: Path, overrides: list[str], changed: bool = True
) -> dict[str, Any]:
    file = folder / "some.toml"
    file.write_text("[graph]\nhalf_life = '14d'\n")
    environ = {"WALKSTREAM_MODEL__DIM": "128"}
    settings_view.run(file, overrides, environ, changed, as_json=True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_json_has_every_setting_with_value_and_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = shown(capsys, tmp_path, ["lsh.tables=4"], changed=False)
    assert set(told) == set(leaves(Config()))
    assert told["graph.half_life"] == {"value": "14d", "source": str(tmp_path / "some.toml")}
    assert told["model.dim"] == {"value": 128, "source": "WALKSTREAM_MODEL__DIM"}
    assert told["lsh.tables"] == {"value": 4, "source": "--set"}
    assert told["items.use"] == {"value": ["category", "tags"], "source": "default"}
    assert told["events.weights.cart"] == {"value": 2.0, "source": "default"}


def test_durations_of_the_json_can_be_read_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = shown(capsys, tmp_path, ["graph.half_life=7d"], changed=False)
    spans = {key: span for key, span in leaves(Config()).items() if isinstance(span, Duration)}
    assert {key: duration(told[key]["value"]) for key in spans} == spans


def test_changed_leaves_out_what_equals_the_default(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told = shown(capsys, tmp_path, ["lsh.tables=8", "kafka.client.id=a", "graph.horizon=90d"])
    assert set(told) == {"graph.half_life", "graph.horizon", "model.dim", "kafka.client.id"}


def test_without_changes_it_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.touch()
    settings_view.run(file, [], {}, changed=True, as_json=False)
    assert capsys.readouterr().out == "everything has its default\n"


@pytest.mark.parametrize("changed", [False, True])
def test_toml_loads_as_what_is_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: bool
) -> None:
    file, copy = tmp_path / "some.toml", tmp_path / "copy.toml"
    file.write_text(
        "preset = 'item2vec'\n[clicks.fields]\nitem_id = 'product.sku'\n[clicks]\ntime_unit = 's'\n"
        "[events.weights]\n'add to \"cart\"' = 2\n'*' = 0\n[round]\nmax_seconds = 0\n"
    )
    overrides = [
        "size.tiers=[[1,16],[9,128]]", "state.dir=/data/{host}", "kafka.linger.ms=7",
        "kafka.bootstrap.servers=b1:9092", "events.impressions=seen", "graph.half_life=36h",
    ]  # fmt: skip
    settings_view.run(file, overrides, {"WALKSTREAM_MODEL__DIM": "128"}, changed, False, True)
    text = capsys.readouterr().out
    copy.write_text(text)
    assert load(copy, [], {}) == load(file, overrides, {"WALKSTREAM_MODEL__DIM": "128"})
    assert "dim = 128  # WALKSTREAM_MODEL__DIM\n" in text
    assert ("[lsh]" in text) != changed


def test_toml_says_which_secrets_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.toml"
    overrides = ["kafka.sasl.password=x", "registry.url=http://me:x@reg"]
    file.touch()
    settings_view.run(file, overrides, {}, True, False, True)
    text = capsys.readouterr().out
    assert "# kafka.sasl.password is left out, as a secret is in it" in text
    assert "# registry.url is left out" in text
    file.write_text(text)
    assert load(file, [], {}) == Config()
    settings_view.run(file, [], {}, True, False, True)
    file.write_text(capsys.readouterr().out)
    assert load(file, [], {}) == Config()


UNKNOWN_SECRETS = ["kafka.sasl.jaas.config", "kafka.SASL.Password", "kafka.some.passphrase"]
"""librdkafka has no such properties."""
SECRETS = [
    "kafka.sasl.password",
    "kafka.sasl.username",
    "kafka.sasl.oauthbearer.client.secret",
    "kafka.ssl.key.pem",
    "kafka.ssl.key.password",
    "kafka.ssl.keystore.password",
    "kafka.ssl.certificate.pem",
    "registry.basic.auth.user.info",
    "registry.bearer.auth.token",
    "registry.api_key",
]
HARMLESS = [
    "kafka.bootstrap.servers",
    "kafka.client.id",
    "kafka.security.protocol",
    "kafka.sasl.mechanism",
    "kafka.sasl.mechanisms",
    "kafka.ssl.ca.location",
    "kafka.enable.ssl.certificate.verification",
    "kafka.transaction.timeout.ms",
    "kafka.compression.type",
    "registry.url",
    "topics.clicks",
]


@pytest.mark.parametrize("key", [*SECRETS, *UNKNOWN_SECRETS])
def test_credentials_are_masked(key: str) -> None:
    assert masked(key, CANARY) == "***"
    assert masked(key, 1234) == "***"


@pytest.mark.parametrize("key", HARMLESS)
def test_what_is_harmless_is_shown(key: str) -> None:
    assert masked(key, CANARY) == CANARY


def test_an_empty_password_is_seen_to_be_empty() -> None:
    assert masked("kafka.sasl.password", "") == ""


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("https://me:hunter2@reg:8081/x", "https://***@reg:8081/x"),
        ("https://hunter2@reg", "https://***@reg"),
        ("https://me:hun/ter2,@hunter2@reg", "https://***@reg"),
        ("http://a:hunter2@r1,http://b:hunter2@r2", "http://***@r1,http://***@r2"),
        ("me:hunter2@proxy:3128", "***@proxy:3128"),
        ("http://reg:8081", "http://reg:8081"),
        ("b1:9092,b2:9092", "b1:9092,b2:9092"),
        ("@key", "@key"),
    ],
)
def test_credentials_inside_urls_are_masked(value: str, told: str) -> None:
    assert masked("registry.url", value) == told


@pytest.mark.parametrize("form", [[], ["--json"], ["--changed"], ["--toml"]])
def test_no_secret_reaches_the_output(form: list[str]) -> None:
    values = [f"{key}={CANARY}" for key in SECRETS] + [f"registry.url=http://me:{CANARY}@reg"]
    settings = [part for value in values for part in ("--set", value)]
    done = command("config", *form, *settings)
    assert done.returncode == 0
    assert "kafka.sasl.password" in done.stdout
    assert CANARY not in done.stdout + done.stderr
    unknown = [part for key in UNKNOWN_SECRETS for part in ("--set", f"{key}={CANARY}")]
    refused = command("config", *form, *unknown)
    assert refused.returncode == 2
    assert "3 settings are wrong" in refused.stderr
    assert CANARY not in refused.stdout + refused.stderr


def test_the_table_tells_values_and_sources_and_meanings_where_there_is_room(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_text("[events.weights]\n'a[b]' = 2\n")
    for columns, meaning in (("100", False), ("200", True)):
        monkeypatch.setenv("COLUMNS", columns)
        settings_view.run(file, ["graph.half_life=14d"], {}, changed=False, as_json=False)
        rows = {
            cells[0]: cells[1:]
            for line in capsys.readouterr().out.splitlines()
            if len(cells := [cell.strip() for cell in line.strip("│").split("│")]) > 1
        }
        assert rows["graph.half_life"][:2] == ['"14d"', "--set"]
        assert rows["lsh.tables"][:2] == ["8", "default"]
        assert rows["events.weights.a[b]"][0] == "2.0"
        assert ("An arc loses half" in " ".join(rows["graph.half_life"])) == meaning


def test_a_wrong_setting_ends_the_command_with_exit_code_2() -> None:
    done = command("config", "--set", "graph.halflife=3d")
    assert done.returncode == 2
    assert done.stderr.startswith("walkstream: graph.halflife: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["kafka.bootstrap.server=b:9092"],
            r"^kafka\.bootstrap\.server: No such .* \(from --set\)",
        ),
        (["kafka.linger.ms=soon"], r"^kafka\.linger\.ms: Invalid value"),
        (["kafka.error_cb=x"], r"^kafka\.error_cb: takes a function"),
        (["kafka.a=1", "kafka.b=1"], r"^2 settings are wrong:\n  kafka\.a: .*\n  kafka\.b: "),
        (["kafka.acks=1"], r"^kafka: .*`acks` must be set to `all`"),
        (["kafka.session.timeout.ms=900000"], r"^kafka: .*max\.poll\.interval\.ms"),
        (["kafka.security.protocol=sasl_ssl", "kafka.sasl.mechanism=PLAIN"], "sasl.username"),
    ],
)
def test_what_librdkafka_refuses_is_told_with_its_key(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    file = tmp_path / "empty.toml"
    file.touch()
    with pytest.raises(ConfigError, match=message):
        settings_view.run(file, overrides, {}, changed=True, as_json=False)


def test_the_check_of_kafka_properties_connects_to_nothing(tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        overrides = [f"kafka.bootstrap.servers={address}", "kafka.linger.ms=7"]
        settings_view.run(file, overrides, {}, changed=True, as_json=False)
        server.settimeout(1.5)
        with pytest.raises(TimeoutError):
            server.accept()
