"""Commands that take clicks: worker, replay, publish, demo."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from streamer.cli.options import (
    INPUT,
    AsJson,
    ConfigFile,
    Files,
    Force,
    Overrides,
    Reading,
    grouped,
    load,
)
from streamer.errors import ConfigError


def worker(
    config: ConfigFile = None,
    overrides: Overrides = None,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go on although clicks that were not read yet fell below retention, or went with "
            "a topic that was created again.",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First publish all rows and vectors again, as the state folder has them: after a "
            "torn commit, or when item-vectors or model-state was made anew.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print where it would begin, and what the clicks are."),
    ] = False,
) -> None:
    """Learn from clicks and publish vectors, until stopped.

    Stop it with SIGTERM or Ctrl-C: it commits and leaves. After a crash, start it again: it
    continues where it committed. Start more of them, each with an app.instance and a state folder
    of its own, and they share the partitions of the clicks.

    **Examples**

    $ walkstream worker --set kafka.bootstrap.servers=broker:9092

    $ walkstream worker --set app.name=music --set state.dir=/data/music --set metrics.port=9471

    $ walkstream worker --set app.instance={host} --set state.dir=/data/{host}

    $ walkstream worker --dry-run
    """
    from streamer.worker.header import Accepted

    settings, accepted = load(config, overrides), Accepted(accept_loss, repair)
    if dry_run:
        from streamer.worker import dry_run as rehearsal

        rehearsal.run(settings, accepted)
        return
    from streamer.worker import run as module

    module.run(settings, accepted)


@grouped
def replay(
    *,
    files: Files,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results are written.")],
    publish: Annotated[
        Literal["last", "all"],
        typer.Option(help="Write the last vector of each item, or every one that was published."),
    ] = "last",
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A catalogue: JSONL or a table with item_id; each other column is an attribute.",
        ),
    ] = None,
    reading: Reading,
    force: Force = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Learn from files instead of Kafka: the same rounds, the same vectors.

    Use it to try settings on yesterday's clicks before a worker gets them. Clicks have the columns
    user_id, item_id and ts, and if you like event_type (click if there is none), weight (1) and
    event_id. A catalogue has item_id, and each other column is an attribute: name or title is what
    `query` shows, a|b is a list. Lines of JSON have the same names, and a catalogue's attributes in
    an object of that name.

    **Examples**

    $ walkstream replay clicks.jsonl.gz --items catalogue.csv --out run1

    $ walkstream replay log.tsv --columns user_id,ts,item_id --time s --out run2 --set model.dim=128
    """
    from streamer.files import replay as module

    settings, source = load(config, overrides), reading.source(files)
    module.run(settings, source, items, out, publish == "all", as_json, force)


@dataclass
class Shop:
    """The invented shop that publishes in place of files."""

    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic",
            help="Instead of files: the products of an invented shop, and clicks on them without "
            "end, with the time as it is now. Tastes change, and products arrive.",
        ),
    ] = False
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="N", help="Synthetic: stop after so long, not at Ctrl-C."),
    ] = None
    products: Annotated[
        int | None,
        typer.Option(min=15, max=7500, metavar="N", help="Synthetic: products; 300 if not given."),
    ] = None
    users: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000_000,
            metavar="N",
            help="Synthetic: users; if not given, as many as session.gap and --rate ask for.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Synthetic: another shop for each; 1 if not given."),
    ] = None
    bots: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Synthetic: clicks of bots, 0.05 for 5%; one bot for each 10% begun. A worker "
            "leaves out what they click after session.max_events.",
        ),
    ] = None
    malformed: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, metavar="SHARE", help="Synthetic: records that are no clicks."
        ),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was asked of it."""
        asked = vars(self).items()
        return {name: value for name, value in asked if name != "synthetic" and value is not None}


@grouped
def publish(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help=INPUT, allow_dash=True),
    ] = None,
    items: Annotated[
        bool, typer.Option("--items", help="The files hold items with attributes, not clicks.")
    ] = False,
    reading: Reading,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="N", help="At most N records a second; 200 with --synthetic."
        ),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="X", help="X times as fast as the clicks once came."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Read it all, print what is in it and what a worker would refuse; send nothing.",
        ),
    ] = False,
    shop: Shop,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Send clicks or items from files, or clicks of an invented shop, to Kafka.

    A file of clicks has the columns user_id, item_id and ts, and if you like event_type (click if
    there is none), weight (1) and event_id; a file of items has item_id, and each other column is
    an attribute (a|b is a list). Lines of JSON have the same names, and a catalogue's attributes
    in an object of that name. Other columns of clicks are ignored.

    **Examples**

    $ walkstream publish clicks.csv --time iso --rate 5000

    $ walkstream publish clicks.csv --time iso --dry-run

    $ walkstream publish catalogue.jsonl --items

    $ zcat old.jsonl.gz | walkstream publish - --speed 60

    $ walkstream publish --synthetic --rate 1000 --malformed 0.01 --bots 0.02
    """
    given = shop.given()
    if shop.synthetic:
        from streamer.demo import synthetic

        _refuse_with_synthetic(
            {
                "FILE": files,
                "--items": items,
                **reading.given(),
                "--speed": speed,
                "--dry-run": dry_run,
            }
        )
        if rate:
            given["rate"] = rate
        synthetic.run(load(config, overrides), **given)
        return

    from streamer.files import publish as module

    if given:
        raise ConfigError(f"{', '.join(f'--{name}' for name in given)}: only with --synthetic")
    if not files:
        raise ConfigError("name files to publish, or give --synthetic for an invented shop")
    if rate and speed:
        raise ConfigError("--rate and --speed: give only one of them")
    if items and reading.sort:
        raise ConfigError("--sort is for clicks: items have no times")
    settings, source = load(config, overrides), reading.source(files)
    if dry_run:
        module.dry_run(settings, source, items)
    else:
        module.run(settings, source, items, rate, speed)


def _refuse_with_synthetic(options: dict[str, object]) -> None:
    if given := [name for name, value in options.items() if value]:
        raise ConfigError(
            f"{', '.join(given)} and --synthetic exclude each other: the shop makes its own records"
        )


def demo(
    seconds: Annotated[float, typer.Option(min=1.0, metavar="N", help="How long it runs.")] = 30.0,
) -> None:
    """Watch it learn: an invented shop, a broker inside this process, nothing to set up.

    It shows how fresh the vectors are, how often the next click is among the first 20 that the
    model names, beside popularity and co-visitation, and how a new product finds its neighbours. A
    bot and broken records are among the clicks.

    **Examples**

    $ walkstream demo --seconds 60
    """
    from streamer.demo import run as module

    module.run(seconds)
