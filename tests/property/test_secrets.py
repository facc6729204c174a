"""No secret reaches an output, whatever else is wrong with what was given."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer import cli
from streamer.cli import options
from streamer.decode.registry import Registry
from streamer.errors import WalkstreamError
from streamer.kafka import clients
from streamer.settings.file import toml
from streamer.settings.secrets import MASK, hidden
from streamer.watch import log

CANARY = "cAn4ry-7f3a"

SECRETS = (
    "kafka.sasl.password",
    "kafka.sasl.oauthbearer.config",
    "kafka.sasl.oauthbearer.client.secret",
    "kafka.sasl.jaas.config",
    "kafka.ssl.key.password",
    "kafka.ssl.key.pem",
    "kafka.ssl.keystore.password",
    "kafka.ssl.certificate.pem",
    "kafka.ssl.ca.pem",
    "registry.basic.auth.user.info",
    "registry.bearer.auth.token",
    "registry.ssl.key.password",
)
VALUES = (
    CANARY,
    f'"{CANARY}"',
    f" {CANARY} ",
    f"{CANARY}==",
    f"a={CANARY} b={CANARY}",
    f"principal=admin secret={CANARY}",
    f"me:{CANARY}",
    f"[{CANARY}",
    f'{{"a" = "{CANARY}"}}',
    f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
)
ADDRESSES = (
    f"https://me:{CANARY}@127.0.0.1:1",
    f"me:{CANARY}@127.0.0.1:1",
    f"SASL_SSL://{CANARY}@127.0.0.1:1",
    f"127.0.0.1:1,me:{CANARY}@127.0.0.1:1",
    f"http://me:{CANARY}/x@127.0.0.1:1",
)
"""What somebody may take for the way to log in."""
OTHERS = (
    "graph.half_life=soon",
    "kafka.linger.ms=soon",
    "kafka.no.such=1",
    "clicks.format=avro",
    "kafka.security.protocol=SASL_SSL",
    "kafka.sasl.mechanism=OAUTHBEARER",
    "kafka.enable.sasl.oauthbearer.unsecure.jwt=true",
    "kafka.sasl.mechanism=PLAIN",
    "kafka.ssl.key.location=/nowhere",
)
"""What else is wrong, so that somebody complains."""

secrets = st.one_of(
    st.tuples(st.sampled_from(SECRETS), st.sampled_from(VALUES)),
    st.tuples(
        st.sampled_from(("kafka.bootstrap.servers", "kafka.metadata.broker.list", "registry.url")),
        st.sampled_from(ADDRESSES),
    ),
)


@st.composite
def invocations(draw: st.DrawFn) -> tuple[list[str], dict[str, str], str]:
    """Arguments, environment and `walkstream.toml`, with a secret in one of them."""
    arguments = draw(st.sampled_from([["config"], ["config", "--json"], ["topics", "check"]]))
    arguments = [*arguments, "--set", "kafka.bootstrap.servers=127.0.0.1:1"]
    for other in draw(st.lists(st.sampled_from(OTHERS), max_size=2)):
        arguments = [*arguments, "--set", other]
    environ: dict[str, str] = {}
    document = ""
    key, value = draw(secrets)
    section, _, name = key.partition(".")
    match draw(st.sampled_from(["--set", "wrong", "stray", "environment", "file", "broken file"])):
        case "--set":
            key = draw(st.sampled_from([key, key.upper(), f"{key}x", f"kafak.{name}", name]))
            arguments += ["--set", f"{key}={value}"]
        case "wrong":
            sign = draw(st.sampled_from([":", " ", ": ", " : ", "->", ""]))
            arguments += ["--set", f"{key}{sign}{value}"]
        case "stray":
            flag, sign = draw(st.sampled_from(["", "-", "--"])), draw(st.sampled_from("=:"))
            arguments += [f"{flag}{key}{sign}{value}"]
        case "environment":
            under = draw(st.sampled_from(["__", "_"]))
            variable = f"WALKSTREAM_{section}{under}{name.replace('.', '_')}".upper()
            environ[variable] = value
        case "file":
            form = draw(
                st.sampled_from([toml(value), f"[{toml(value)}]", f"{{x = {toml(value)}}}"])
            )
            document = f"[{section}]\n{toml(name)} = {form}\n"
        case _:
            document = f"[{section}]\n{toml(name)} = {toml(value)} again\n"
    return arguments, environ, document


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nobody is waited for who is not there."""
    monkeypatch.setattr(clients, "PROBE_SECONDS", 0.0)
    monkeypatch.setattr(clients, "TRY_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(invocations())
def test_no_secret_reaches_an_output(
    quick: Path, capfd: pytest.CaptureFixture[str],
    invocation: tuple[list[str], dict[str, str], str],
) -> None:  # fmt: skip
    arguments, environ, document = invocation
    (quick / "walkstream.toml").write_text(document)
    capfd.readouterr()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WALKSTREAM_")}
    with mock.patch.dict(os.environ, kept | environ, clear=True):
        try:
            options.refuse_stray(arguments)
            cli.app(arguments, prog_name="walkstream")
        except SystemExit:
            pass
        except Exception as error:
            log.end(error)
    told = capfd.readouterr()
    assert CANARY not in told.out + told.err
    assert "Traceback" not in told.err, told.err
    assert told.out + told.err


@pytest.mark.parametrize("value", VALUES)
def test_a_library_that_repeats_a_secret_or_a_part_of_it_is_not_quoted(value: str) -> None:
    given: dict[str, Any] = {"sasl.oauthbearer.config": value, "client.id": "shop"}
    text = f"Unrecognized sasl.oauthbearer.config beginning at: {value} of {CANARY} in shop"
    told = hidden(text, given)
    assert CANARY not in told
    assert MASK in told
    assert told.endswith("in shop")


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_registry_that_is_not_there_is_named_without_its_credentials(address: str) -> None:
    with pytest.raises(WalkstreamError, match="registry") as failed:
        Registry("avro", {"url": address, "max.retries": 0}).parts(b"\0\0\0\0\1x")
    assert CANARY not in str(failed.value)
