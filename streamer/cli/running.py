"""Commands that take clicks: worker, replay, publish, demo."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.options import (
    Columns,
    ConfigFile,
    Files,
    Overrides,
    Time,
    load,
    names,
)
from streamer.errors import ConfigError


def worker(
    config: ConfigFile = None,
    overrides: Overrides = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go on although clicks that were not read yet fell below retention.",
        ),
    ] = False,
) -> None:
    """Learn from clicks and publish vectors, until stopped.

    Stop it with SIGTERM or Ctrl-C: it commits and leaves. After a crash, start it again: it
    continues where it committed. One worker at a time runs for an app.name.

    **Examples**

    $ walkstream worker --set kafka.bootstrap.servers=broker:9092

    $ walkstream worker --set app.name=music --set state.dir=/data/music --set metrics.port=9471
    """
    from streamer import worker as module

    module.run(load(config, overrides), accept_loss)


def replay(
    files: Files,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results are written.")],
    publish: Annotated[
        Literal["last", "all"],
        typer.Option(help="Write the last vector of each item, or every one that was published."),
    ] = "last",
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A catalogue: attributes of the items, for all of them."),
    ] = None,
    columns: Columns = None,
    time: Time = "ms",
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Learn from files instead of Kafka: the same rounds, the same vectors.

    Use it to try settings on yesterday's clicks before a worker gets them.

    **Examples**

    $ walkstream replay clicks.jsonl.gz --items catalogue.csv --out run1

    $ walkstream replay log.tsv --columns user_id,ts,item_id --time s --out run2 --set model.dim=128
    """
    from streamer import readers
    from streamer import replay as module

    source = readers.Source(files, names(columns), time)
    module.run(load(config, overrides), source, items, out, publish == "all")


def publish(
    files: Files,
    items: Annotated[
        bool, typer.Option("--items", help="The files hold items with attributes, not clicks.")
    ] = False,
    columns: Columns = None,
    time: Time = "ms",
    rate: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="At most N records a second.")
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="X", help="X times as fast as the clicks once came."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Send clicks or items from files to Kafka.

    **Examples**

    $ walkstream publish clicks.csv --time iso --rate 5000

    $ walkstream publish catalogue.jsonl --items

    $ zcat old.jsonl.gz | walkstream publish - --speed 60
    """
    from streamer import publish as module
    from streamer import readers

    if rate and speed:
        raise ConfigError("--rate and --speed: give only one of them")
    source = readers.Source(files, names(columns), time)
    module.run(load(config, overrides), source, items, rate, speed)


def demo(
    seconds: Annotated[float, typer.Option(min=1.0, metavar="N", help="How long it runs.")] = 30.0,
) -> None:
    """Watch it learn: an invented shop, a broker inside this process, nothing to set up.

    **Examples**

    $ walkstream demo --seconds 60
    """
    from streamer import demo as module

    module.run(seconds)
