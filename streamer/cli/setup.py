"""Commands for settings: config, init."""

import os
from pathlib import Path
from typing import Annotated

import typer

from streamer.cli.options import AsJson, ConfigFile, Overrides
from streamer.errors import ConfigError


def config(
    config: ConfigFile = None,
    overrides: Overrides = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what differs from the defaults.")
    ] = False,
    as_json: AsJson = False,
    as_toml: Annotated[
        bool,
        typer.Option(
            "--toml", help="Print a settings file instead of a table, without what is secret."
        ),
    ] = False,
) -> None:
    """Print the settings in force and where each came from; exit with 2 if one is wrong.

    Passwords and other credentials are masked. A terminal of 120 columns or more shows what each
    setting means.

    **Examples**

    $ walkstream config --changed

    $ walkstream config --changed --set preset=deepwalk --toml > mine.toml

    $ walkstream config --config production.toml --set graph.half_life=14d --json
    """
    from streamer.settings import view as module

    if as_json and as_toml:
        raise ConfigError("--json and --toml: one or the other")
    module.run(config, overrides or [], os.environ, changed, as_json, as_toml)


def init(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where to; - is standard output.", allow_dash=True),
    ] = Path("walkstream.toml"),
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there already.")
    ] = False,
) -> None:
    """Write a settings file with every setting, its default and its meaning.

    **Examples**

    $ walkstream init

    $ walkstream init production.toml
    """
    from streamer.settings import file as module

    module.run(file, force)
