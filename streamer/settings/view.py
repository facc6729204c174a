"""The settings in force and where each came from, for people and for scripts."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer
from rich.markup import escape
from rich.table import Table

from core.settings import Duration
from streamer.errors import ConfigError
from streamer.kafka import clients
from streamer.settings import file as settings_file
from streamer.settings.load import leaves, load_with_origins, refuse, spelled
from streamer.settings.secrets import hidden, masked
from streamer.settings.sections import Config
from streamer.terminal import Console, one_line

WIDE = 120
"""Columns of a terminal from which on the meanings are shown too."""
_SERVERS = ("bootstrap.servers", "metadata.broker.list")
DEFAULT = "default"
EMPTY = "everything has its default"


class InForce(msgspec.Struct, frozen=True):
    """One setting as it is in force."""

    value: Any
    """As in JSON; durations are text such as "30m", secrets are masked."""
    source: str
    """`default`, a file, an environment variable, `--set`, or the setting it follows from; behind
    it what was written, where `{host}` is in it."""


def in_force(config: Config, origins: Mapping[str, str]) -> dict[str, InForce]:
    """Every setting by its key, secrets masked; `origins` are those of `load_with_origins`."""
    return {
        key: InForce(_plain(masked(key, value)), origins.get(key, DEFAULT))
        for key, value in leaves(config).items()
    }


def _plain(value: Any) -> Any:
    return spelled(value) if isinstance(value, Duration) else value


def run(
    file: Path | None,
    overrides: Sequence[str],
    environ: Mapping[str, str],
    changed: bool,
    as_json: bool,
    as_toml: bool = False,
) -> None:
    """Print what is in force, or what of it differs from the defaults.

    ConfigError as `load`, and for what librdkafka refuses in section [kafka].
    """
    config, origins = load_with_origins(file, overrides, environ)
    refuse(_kafka_problems(config), origins)
    shown = in_force(config, origins)
    if changed:
        values, defaults = leaves(config), leaves(Config())
        shown = {key: one for key, one in shown.items() if values[key] != defaults.get(key)}
    if as_toml:
        secrets = {key for key, value in leaves(config).items() if masked(key, value) != value}
        print(_as_file(shown, secrets) or f"# {EMPTY}")
    elif as_json:
        print(msgspec.json.format(msgspec.json.encode(shown)).decode())
    elif shown:
        console = Console(highlight=False)
        console.print(_table(shown, console.width >= WIDE))
    else:
        print(EMPTY)


def _as_file(shown: Mapping[str, InForce], secrets: Container[str]) -> str:
    """A file that loads as what is shown, but for secrets, and says where each value is from."""
    said = settings_file.meanings()
    tables: dict[str, list[str]] = {}
    for key, setting in shown.items():
        section, described = key.partition(".")[0], _described(key, said)
        tables.setdefault(section, [])  # stands before the tables in it
        table, source = section if described == key else described, one_line(setting.source)
        if key in secrets:
            line = f"# {key} is left out, as a secret is in it: give it as before ({source})"
        else:
            name = key.removeprefix(f"{table}.")
            line = f"{settings_file.assignment(name, setting.value)}  # {source}"
        tables.setdefault(table, []).append(line)
    return "\n\n".join(
        "\n".join([f"[{table}]", *lines]) for table, lines in tables.items() if lines
    )


def _kafka_problems(config: Config) -> Iterator[tuple[str, str]]:
    """Properties that no client can be made with, each with what librdkafka says.

    Nothing is connected to, as the brokers are left out.
    """
    given = {key: value for key, value in config.kafka.items() if key not in _SERVERS}
    found = False
    for key, value in given.items():
        problem = _refusal(partial(Producer, {"log_level": 2, key: value}))
        # Some make sense only beside others.
        if problem and not problem.startswith("Failed to create"):
            found = True
            yield f"kafka.{key}", hidden(problem, config.kafka)
    if found:
        return
    for client in (clients.producer, clients.group_consumer, clients.reading_consumer):
        try:
            client(replace(config, kafka=given))
        except ConfigError as error:
            yield "kafka", str(error).removeprefix("kafka: ")
            return


def _refusal(client: Callable[[], object]) -> str:
    """Why a client cannot be made; empty if it can."""
    try:
        client()
    except KafkaException as error:
        return str(error.args[0].str())
    except (TypeError, ValueError) as error:
        return str(error)
    return ""


def _table(shown: Mapping[str, InForce], wide: bool) -> Table:
    table = Table()
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("source", overflow="fold")
    if wide:
        table.add_column("meaning", style="dim")
    said = settings_file.meanings()
    section = described = ""
    for key, setting in shown.items():
        if key.partition(".")[0] != section:
            section = key.partition(".")[0]
            table.add_section()
        # The keys of a table of names have one text, which stands beside the first of them.
        before, described = described, _described(key, said)
        meaning = escape(said[described]) if described != before else ""
        source = escape(setting.source)
        row = [escape(key), escape(settings_file.toml(setting.value)), source]
        if setting.source != DEFAULT:
            row[2] = f"[bold]{source}[/]"
        table.add_row(*row, *([meaning] if wide else []))
    return table


def _described(key: str, said: Mapping[str, str]) -> str:
    """The key, or the table around it, that has a text."""
    while key not in said:
        key = key.rpartition(".")[0]
    return key
