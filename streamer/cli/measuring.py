"""Commands that measure: bench, evaluate, tune."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.asking import State
from streamer.cli.options import (
    INPUT,
    AsJson,
    ConfigFile,
    Force,
    Overrides,
    Reading,
    grouped,
    load,
)
from streamer.errors import ConfigError


def bench(
    name: Annotated[
        Literal["skipgram", "walks", "graph", "ingest", "index", "round", "scale", "all"],
        typer.Argument(
            metavar="NAME", help="skipgram, walks, graph, ingest, index, round, scale or all."
        ),
    ],
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Also measure with so many threads.")
    ] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller inputs: sooner, and rougher.")
    ] = False,
    events: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="The log that `round` replays instead of an invented shop's: a TSV, or TSV.GZ, of "
            "user_id, item_id, ts (ms) and event_type without a header.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How fast the engine is on this machine, beside a peer in the same run.

    *skipgram* learns from walks of an invented graph, beside gensim. *walks* are those on the live
    graph, beside PecanPy. *graph* folds transitions, beside sums of scipy's sparse matrices, and
    tells what memory holds. *ingest* reads a real Kafka (KAFKA_BOOTSTRAP_SERVERS, or one that it
    starts) as far as the graph, beside quixstreams. *index* writes a round's rows and answers
    queries, beside sqlite and faiss. *round* replays a whole log, beside item2vec of gensim.
    *scale* takes rounds and commits at ten thousand to a million items, each size beside the
    smaller one, and tells how many bytes a click costs in each topic. Each takes one to ten
    minutes.

    The two take turns, at least five times each, and the medians count: compare the ratio (ours by
    the peer's), not the figures, between machines. Targets are those of the full size. Peers come
    with `pip install 'walkstream[bench]'`; one that pins old versions gets an environment of its
    own in `~/.cache/walkstream`.

    **Examples**

    $ walkstream bench skipgram --threads 2

    $ walkstream bench all --quick --json > results.jsonl
    """
    from streamer.bench import run as module
    from streamer.bench.results import Options

    if events is not None and name not in ("round", "all"):
        raise ConfigError(f"--events is for round; {name} invents its own input")
    module.run(name, Options(threads, quick, events), as_json)


NO_FILE = "name the files to evaluate, or --drift"


@dataclass
class Picture:
    """Where a picture goes, if one is wanted."""

    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the hit rates over the stream; with --compare also by clicks before.",
        ),
    ] = None
    force: Force = False


@dataclass
class Ranking:
    """What of the files is ranked, and how."""

    mode: Annotated[
        Literal["similar", "next", "hybrid", "all"],
        typer.Option(help="How the model is asked, as in `query`."),
    ] = "all"
    peer: Annotated[
        Literal["gensim", "batch", "all"] | None,
        typer.Option(
            help="Beside vectors that are trained anew on all history at every tenth of the log: "
            "item2vec and DeepWalk of gensim, or the engine's own trainer in batch, or all."
        ),
    ] = None
    session: Annotated[
        bool,
        typer.Option("--session", help="Ask the model by the last items of the session too."),
    ] = False
    unseen: Annotated[
        bool,
        typer.Option(
            "--unseen",
            help="Rank no item that the session has already, and no click on one.",
        ),
    ] = False
    sample: Annotated[
        int, typer.Option(min=1, metavar="N", help="Clicks ranked in a round at most.")
    ] = 256
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Attributes of items, as of publish --items, for model.attribute_slots. All are "
            "known before the first click.",
        ),
    ] = None
    begin: Annotated[
        float,
        typer.Option(
            "--from",
            min=0.0,
            max=0.99,
            metavar="SHARE",
            help="Figures are of what comes after this share of the clicks.",
        ),
    ] = 0.5


@dataclass
class Drift:
    """A log that is invented, in place of files."""

    drift: Annotated[
        bool,
        typer.Option(
            "--drift",
            help="Without FILE: how soon the model follows, where all items of an invented log "
            "change their groups.",
        ),
    ] = False
    ages: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="With --drift, after so many clicks each. Default: 50k,200k,1M,2M, which takes "
            "some minutes; 25k,100k takes one.",
        ),
    ] = None


@grouped
def evaluate(
    *,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE...]", help=INPUT, allow_dash=True)
    ] = None,
    ranking: Ranking,
    drift: Drift,
    reading: Reading,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Compare configurations in one pass, two or more: a settings file, or a preset "
            "(walkstream, word2vec, item2vec, deepwalk, node2vec, eges), with settings of its own "
            "behind commas. Repeatable.",
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    picture: Picture,
    as_json: AsJson = False,
) -> None:
    """How well the model would have named the next item, on a log of yours, and how steadily.

    Each round is ranked before it is learned, as in `replay`: where in a ranking of all items does
    the one stand that was clicked next? The same clicks are ranked by baselines: decayed
    popularity, counts of transitions, decayed co-visitation of adjacent clicks and within five
    steps (w5), session-kNN, VSKNN and STAN. The best of them on this log is the measure. Figures
    come by popularity and age of the item, too, and then what moves between two publishes. The
    files are those of `replay`. A challenger of the settings learns beside the model, and takes
    over as in a worker; with `user_vectors.kind` the vectors of users rank, too.

    **Examples**

    $ walkstream evaluate clicks.csv.gz --time iso --plot quality.png

    $ walkstream evaluate log.tsv --columns user_id,item_id,ts --session --peer gensim --json

    $ walkstream evaluate log.tsv --compare walkstream --compare item2vec --compare mine.toml

    $ walkstream evaluate log.tsv --compare deepwalk --compare deepwalk,walks.length=40

    $ walkstream evaluate --drift --plot recovery.png
    """
    if drift.drift != (not files):
        raise ConfigError("--drift invents a log: leave FILE out" if files else NO_FILE)
    if drift.drift:
        from streamer.evaluate import drift as drifting

        if (ranking, reading, compare) != (Ranking(), Reading(), None):
            raise ConfigError(
                "--drift goes with --ages, --plot, --json and --set: the rest is of FILE"
            )
        found = drifting.Options(drifting.ages_of(drift.ages), as_json, picture.plot, picture.force)
        drifting.run(load(config, overrides), found)
        return
    if drift.ages is not None:
        raise ConfigError("--ages is for --drift")
    from streamer.evaluate import run as module

    options = module.Options(
        **vars(ranking), as_json=as_json, plot=picture.plot, force=picture.force
    )
    source = reading.source(files or [])
    if compare:
        from streamer.evaluate import compare as comparing

        if len(compare) < 2:
            raise ConfigError("--compare: name two configurations at least")
        load(config, overrides)  # sets up the log
        comparing.run(comparing.variants(compare, config, overrides or []), source, options)
        return
    module.run(load(config, overrides), source, options)


def tune(
    recall: Annotated[
        float, typer.Option(min=0.01, max=1.0, metavar="R", help="Of the true ten nearest.")
    ] = 0.95,
    candidates: Annotated[
        float | None,
        typer.Option(min=1, metavar="N", help="Items that a query may meet, on the mean."),
    ] = None,
    family: Annotated[
        Literal["sign", "p-stable"] | None,
        typer.Option(help="Of the hashes. Default: the model's."),
    ] = None,
    state: State = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw recall by candidates.")
    ] = None,
    force: Force = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Which LSH tables and bits find the nearest at the least cost, on your vectors.

    Reads a state folder, also while its worker runs, and changes nothing. What it prints is for
    the next model.

    **Examples**

    $ walkstream tune --recall .95

    $ walkstream tune --recall .98 --candidates 800 --plot recall.png
    """
    from streamer.inspect import tune as module

    loaded = load(config, overrides)
    folder = state or Path(loaded.state.dir)
    module.run(folder, recall, family, candidates, plot, as_json, force)
