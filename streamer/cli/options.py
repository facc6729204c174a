"""Options that several commands have, and what they stand for."""

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from streamer.errors import ConfigError

if TYPE_CHECKING:
    from streamer.files.readers import Source
    from streamer.settings.sections import Config


def _with_equals_signs(overrides: list[str] | None) -> list[str] | None:
    """Looked at before anything else: a usage error would show what stands beside it."""
    from streamer.settings.load import split

    for override in overrides or ():
        split(override)
    return overrides


def refuse_stray(arguments: list[str]) -> None:
    """ConfigError for a setting of a library that is not behind `--set`: it may be a secret."""
    for before, argument in pairwise(["", *arguments]):
        found = re.match(r"-*((kafka|registry)\.[\w.]+)[=:]", argument)
        if found and before != "--set":
            raise ConfigError(f"{found[1]}: write --set {found[1]}=VALUE")


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
        callback=_with_equals_signs,
        metavar="SECTION.KEY=VALUE",
        help="A setting, above the file and WALKSTREAM_SECTION__KEY variables. Repeatable: "
        "--set graph.half_life=14d --set app.name=music",
    ),
]
INPUT = (
    "JSONL, CSV, TSV or the like, also compressed (gz, bz2, zst, xz), or Parquet; - is standard "
    "input."
)
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help=INPUT, allow_dash=True)]
Force = Annotated[
    bool, typer.Option("--force", help="Write over a file that is there, and through a link.")
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
            metavar="A,B,C",
            help="Names of all columns of a table without a header line, _ skips one; or "
            "NAME=COLUMN,... for columns of a table that has one.",
        ),
    ] = None
    time: Annotated[
        Literal["ms", "s", "us", "ns", "iso", "order", "auto"],
        typer.Option(
            help="Unit of ts; auto takes the one in which it is between 1990 and 2100, and order "
            "numbers the clicks, a second apart."
        ),
    ] = "ms"
    delimiter: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What is between the fields of a table. Default: comma, tab, semicolon or |, by "
            "the first line.",
        ),
    ] = None
    null: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Texts that stand for a missing field of a table, beside the empty one. Default: "
            "NULL,null,None,nan,NaN,\\\\N; '' is none.",
        ),
    ] = None
    sort: Annotated[
        bool,
        typer.Option(
            "--sort",
            help="Take the clicks in the order of their times; sorted on disk, in the folder "
            "TMPDIR.",
        ),
    ] = False

    def source(self, files: list[Path]) -> "Source":
        """What the options stand for. ConfigError if they do not fit."""
        from streamer.files.readers import Source
        from streamer.files.tables import NULLS

        return Source(
            files,
            _columns(self.columns),
            self.time,
            delimiter=_delimiter(self.delimiter),
            nulls=NULLS if self.null is None else tuple(filter(None, self.null.split(","))),
            sort=self.sort,
        )

    def given(self) -> dict[str, object]:
        """Those that differ from the defaults, by their names on the command line."""
        usual = vars(Reading())
        return {f"--{name}": True for name, value in vars(self).items() if value != usual[name]}


def _columns(text: str | None) -> list[str] | dict[str, str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    pairs = [name.partition("=") for name in names]
    if not any(equals for _, equals, _ in pairs):
        return names
    if plain := [name for name, equals, column in pairs if not (name and equals and column)]:
        raise ConfigError(
            f"--columns: {plain[0] or text} names no column: give NAME=COLUMN for each, or the "
            "names of all columns in their order"
        )
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ConfigError(f"--columns {text}: names a column twice")
    return {name: column for name, _, column in pairs}


def _delimiter(text: str | None) -> str | None:
    delimiter = {"\\t": "\t", "tab": "\t"}.get(text or "", text)
    if delimiter is not None and (not delimiter or set(delimiter) & set('"\r\n')):
        raise ConfigError("--delimiter: must be a text such as ';' without quotes or line ends")
    return delimiter


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
