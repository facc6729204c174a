"""Settings that differ from machine to machine, written as one."""

import json
import socket
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings import view as settings_view
from streamer.settings.load import load
from tests.unit.settings.files import written


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "shop-7f3a")


def test_the_host_stands_in_instance_and_folder_from_each_source(tmp_path: Path) -> None:
    file = written(tmp_path, "[app]\ninstance = '{host}'\n[state]\ndir = '/data/{host}/{host}'\n")
    config = load(file, [], {})
    assert config.app.instance == "shop-7f3a"
    assert config.state.dir == "/data/shop-7f3a/shop-7f3a"
    file = written(tmp_path)
    assert load(file, ["app.instance=w-{host}"], {}).app.instance == "w-shop-7f3a"
    environ = {"WALKSTREAM_APP__INSTANCE": "{host}", "WALKSTREAM_STATE__DIR": "s/{host}"}
    config = load(file, [], environ)
    assert (config.app.instance, config.state.dir) == ("shop-7f3a", "s/shop-7f3a")


def test_other_settings_stay_as_they_are_written(tmp_path: Path) -> None:
    config = load(written(tmp_path), ["app.name={host}", "kafka.client.id={host}"], {})
    assert (config.app.name, config.kafka["client.id"]) == ("{host}", "{host}")


@pytest.mark.parametrize("text", ["{hostname}", "{HOST}", "w-{}", "{host}-{pod}"])
@pytest.mark.parametrize("key", ["app.instance", "state.dir"])
def test_another_name_in_braces_is_refused_with_where_it_was_set(
    tmp_path: Path, key: str, text: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: .*there is only {{host}} \(from --set\)$"):
        load(written(tmp_path), [f"{key}={text}"], {})


def test_a_brace_alone_is_a_text_like_any_other(tmp_path: Path) -> None:
    assert load(written(tmp_path), ["state.dir=a{b"], {}).state.dir == "a{b"


def test_a_host_without_a_name_makes_no_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "")
    with pytest.raises(ConfigError, match=r"^app\.instance: must not be empty"):
        load(written(tmp_path), ["app.instance={host}"], {})


def test_what_is_in_force_is_shown_with_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "[app]\ninstance = '{host}'\n")
    settings_view.run(file, [], {}, changed=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    # With what was written, as the value is of use on this machine alone.
    assert told == {"app.instance": {"value": "shop-7f3a", "source": f"{file}: {{host}}"}}
