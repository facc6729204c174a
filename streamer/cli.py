"""The command line. Commands only parse; what does the work is imported when they run."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamer.errors import ConfigError, Refused, WalkstreamError

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from streamer.config import Config
    from streamer.topics import TopicSpec

app = typer.Typer(
    help="Item embeddings that follow a stream of clicks, from Kafka to Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
topics_app = typer.Typer(help="Create the topics, or check that they lose nothing.")
app.add_typer(topics_app, name="topics", no_args_is_help=True)

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
State = Annotated[
    Path, typer.Option(metavar="DIR", help="State folder of a worker, running or stopped.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point. Exits with the code of the error, 130 when interrupted."""
    # Small products gain nothing from more BLAS threads, and sums must not depend on their number.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app(prog_name="walkstream")
    except WalkstreamError as error:
        print(f"walkstream: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            print(f"walkstream {version('walkstream')}")
        except PackageNotFoundError:
            print("walkstream, not installed as a package")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def _config(file: Path | None, overrides: list[str] | None) -> "Config":
    from streamer import config, log

    loaded = config.load(file, overrides or [], os.environ)
    log.setup(loaded.log)
    return loaded


def _names(columns: str | None) -> list[str] | None:
    return None if columns is None else [name.strip() for name in columns.split(",")]


@app.command()
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

    module.run(_config(config, overrides), accept_loss)


@app.command()
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

    source = readers.Source(files, _names(columns), time)
    module.run(_config(config, overrides), source, items, out, publish == "all")


@app.command()
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
    source = readers.Source(files, _names(columns), time)
    module.run(_config(config, overrides), source, items, rate, speed)


@app.command()
def query(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Item id.")],
    state: State = Path("state"),
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    mode: Annotated[
        Literal["similar", "next"],
        typer.Option(help="Items like it, or items that are clicked after it."),
    ] = "similar",
    as_json: AsJson = False,
) -> None:
    """Neighbours of an item, from the state folder of a worker, also while it runs.

    **Examples**

    $ walkstream query 42

    $ walkstream query 42 --mode next -k 20 --json
    """
    from streamer import query as module

    module.run(state, item, k, mode, as_json)


@app.command()
def inspect(state: State = Path("state"), as_json: AsJson = False) -> None:
    """What a state folder holds: items, clusters, offsets, space.

    **Examples**

    $ walkstream inspect --state /data/1
    """
    from streamer import inspection as module

    module.run(state, as_json)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1.0, metavar="N", help="How long it runs.")] = 30.0,
) -> None:
    """Watch it learn: an invented shop, a broker inside this process, nothing to set up.

    **Examples**

    $ walkstream demo --seconds 60
    """
    from streamer import demo as module

    module.run(seconds)


@topics_app.command("create")
def create_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Create the topics that do not exist yet, and print their names.

    **Examples**

    $ walkstream topics create --set topics.partitions=16 --set topics.replication=3
    """
    from streamer import topics

    admin, specs = _admin_and_specs(_config(config, overrides))
    made = topics.create(admin, specs)
    print(f"made {', '.join(made)}" if made else "all topics are there already")


@topics_app.command("check")
def check_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what the topics have that would lose clicks or vectors; exit with 3 if anything.

    **Examples**

    $ walkstream topics check --config production.toml
    """
    from streamer import topics

    admin, specs = _admin_and_specs(_config(config, overrides))
    mismatches = topics.check(admin, specs)
    for mismatch in mismatches:
        print(mismatch)
    if not mismatches:
        print(f"{len(specs)} topics, all fit")
    else:
        raise typer.Exit(Refused.exit_code)


def _admin_and_specs(config: "Config") -> "tuple[AdminClient, list[TopicSpec]]":
    from streamer import kafka, topics

    return kafka.admin(config), topics.specs(config.topics, config.graph.horizon_ms)


if __name__ == "__main__":
    main()
