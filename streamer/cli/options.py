"""Options that several commands have, and what they stand for."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from streamer.files.readers import Source
    from streamer.settings.sections import Config

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Default: walkstream.toml here, if there is one."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="A setting, above the file and WALKSTREAM_SECTION__KEY variables. Repeatable: "
        "--set graph.half_life=14d --set kafka.bootstrap.servers=broker:9092",
    ),
]
Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="JSONL, CSV or TSV, also gzipped; - is standard input.",
        allow_dash=True,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load(file: Path | None, overrides: list[str] | None) -> "Config":
    """The configuration in force, with logging set up by it."""
    from streamer.settings import load as config
    from streamer.watch import log

    loaded = config.load(file, overrides or [], os.environ)
    log.setup(loaded.log)
    return loaded


@dataclass
class Reading:
    """How files of clicks or items are read."""

    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help="Column names of CSV or TSV without a header line; _ skips one."
        ),
    ] = None
    time: Annotated[
        Literal["ms", "s", "iso", "order"],
        typer.Option(help="Unit of ts; order numbers the clicks, a second apart."),
    ] = "ms"

    def source(self, files: list[Path]) -> "Source":
        from streamer.files.readers import Source

        columns = None if self.columns is None else [n.strip() for n in self.columns.split(",")]
        return Source(files, columns, self.time)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes each field of its dataclass parameters as an option of its own.

    So typer sees every option, and the command gets those that belong together as one value.
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, set[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            fields = inspect.signature(group).parameters
            groups[parameter.name] = group, set(fields)
            parameters += fields.values()
        else:
            parameters.append(parameter)

    def call(**given: Any) -> None:
        for name, (group, fields) in groups.items():
            given[name] = group(**{field: given.pop(field) for field in fields & given.keys()})
        command(**given)

    call.__name__, call.__module__, call.__doc__ = (
        command.__name__, command.__module__, command.__doc__,
    )  # fmt: skip
    options = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return call
