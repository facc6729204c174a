"""Options that several commands have, and what they stand for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
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
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C", help="Column names of CSV or TSV without a header line; _ skips one."
    ),
]
Time = Annotated[
    Literal["ms", "s", "iso", "order"],
    typer.Option(help="Unit of ts; order numbers the clicks, a second apart."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def load(file: Path | None, overrides: list[str] | None) -> "Config":
    """The configuration in force, with logging set up by it."""
    from streamer.settings import load as config
    from streamer.watch import log

    loaded = config.load(file, overrides or [], os.environ)
    log.setup(loaded.log)
    return loaded


def names(columns: str | None) -> list[str] | None:
    """Column names of `--columns`."""
    return None if columns is None else [name.strip() for name in columns.split(",")]
