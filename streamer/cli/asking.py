"""Commands that look and change nothing: query, export, inspect, plot, cluster, check-topic."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.options import AsJson, ConfigFile, Force, Overrides, load

State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="State folder of a worker, running or stopped. Default: state.dir of the "
        "configuration.",
    ),
]


def query(
    items: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ITEM...]",
            help="An item; or the last items of a session, the newest last; or -, and each line of "
            "standard input is one or the other, with tabs between the items of a session; blank "
            "lines are left out.",
        ),
    ] = None,
    state: State = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="How many.")] = 10,
    mode: Annotated[
        Literal["similar", "next", "hybrid"],
        typer.Option(
            help="Items like it; items that are clicked after it, by the vectors; or how likely "
            "each is to come next, by all that is known, which is best for recommending."
        ),
    ] = "similar",
    min_updates: Annotated[
        int, typer.Option(min=0, metavar="N", help="Leave out items with fewer updates.")
    ] = 0,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="N|NAME",
            help="In place of items: the most clicked ones of this cluster, by decayed clicks. "
            "Clusters by rules have names.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="In place of items: what to recommend to this user, by user-vectors "
            "(user_vectors.kind), without the items that the user clicked last.",
        ),
    ] = None,
    by_cluster: Annotated[
        bool,
        typer.Option(
            "--by-cluster", help="With --user: the most clicked items of the user's clusters."
        ),
    ] = False,
    with_seen: Annotated[
        bool, typer.Option("--with-seen", help="With --user: what the user clicked last, too.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Show items with this attribute only. Repeatable: of one name any of the values, "
            "of several names all.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(metavar="S", help="Show items from this score on, in similar a cosine."),
    ] = None,
    heat: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="W",
            help="Multiply scores by the share of decayed clicks, to this power.",
        ),
    ] = 0.0,
    freshness: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="W",
            help="Multiply scores by 2^(-W age / graph.half_life), age since the last click.",
        ),
    ] = 0.0,
    ctr: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="W",
            help="Multiply scores by the click-through rate as a multiple of the mean one, to this "
            "power; for events.impressions.",
        ),
    ] = 0.0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Neighbours of an item or of a session, from the state folder of a worker, also while it runs.

    Each older item of a session counts model.session_decay times the one after it, and no item of
    the session is in the answer. The graph of hybrid is that of the last checkpoint. Many queries
    at once, by -, are answered from memory.

    **Examples**

    $ walkstream query 42

    $ walkstream query 42 --mode next -k 20 --json

    $ walkstream query 17 8 42 --mode hybrid

    $ walkstream query 42 --where category=shoes --where category=boots --heat .3

    $ walkstream query --cluster 12 -k 50

    $ walkstream query --cluster "category=shoes, tags=summer"

    $ walkstream query --user u17 --mode next

    $ walkstream query - --mode hybrid --json < items.txt > neighbours.jsonl
    """
    from streamer.query import choice, users
    from streamer.query import cluster as clusters
    from streamer.query import run as module

    try:
        chosen = choice.Choice(choice.parsed(where or []), min_score, heat, freshness, ctr)
    except ValueError as error:
        raise typer.BadParameter(f"--where {error}") from None
    if bool(items) + (cluster is not None) + (user is not None) != 1:
        raise typer.BadParameter(
            "name one of these: an item, or items of a session; --cluster N; --user ID"
        )
    if user is None and (by_cluster or with_seen):
        raise typer.BadParameter("--by-cluster and --with-seen go with --user")
    loaded = load(config, overrides)
    folder = state or Path(loaded.state.dir)
    if cluster is not None:
        plain = choice.Choice(chosen.where)
        if (chosen, mode, min_updates) != (plain, "similar", 0):
            raise typer.BadParameter("--cluster goes with -k, --where and --json")
        clusters.run(folder, cluster, k, chosen, as_json)
        return
    options = module.Options(
        k, mode, min_updates, loaded.model.session_decay, as_json, chosen
    )  # fmt: skip
    if user is None:
        module.run(folder, items or [], options)
        return
    if by_cluster and (chosen, mode, min_updates) != (choice.Choice(chosen.where), "similar", 0):
        raise typer.BadParameter("--by-cluster goes with -k, --where, --with-seen and --json")
    users.run(folder, user, options, by_cluster, with_seen)


def export(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A name that ends in .npz, .txt (word2vec) or .parquet; with --i2i in .jsonl or "
            ".parquet.",
        ),
    ],
    fmt: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="npz, word2vec or parquet, for any name."),
    ] = None,
    state: State = None,
    from_topic: Annotated[
        bool,
        typer.Option(
            "--from-topic", help="Read topics.item_vectors, and no state folder: from anywhere."
        ),
    ] = False,
    commit: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="As of this commit, as the header of its records and the log name it. Default: "
            "the newest.",
        ),
    ] = None,
    vectors: Annotated[
        Literal["vector", "context"],
        typer.Option(help="Which of an item's two vectors word2vec's format gets."),
    ] = "vector",
    i2i: Annotated[
        int | None,
        typer.Option(
            "--i2i", min=1, max=10_000, metavar="N", help="Write the N nearest items of each item."
        ),
    ] = None,
    mode: Annotated[
        Literal["similar", "next"],
        typer.Option(help="With --i2i: items like it, or items that are clicked after it."),
    ] = "similar",
    force: Force = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Write all vectors to a file, or the nearest items of all items, as of one commit.

    Vectors have length 1, as in item-vectors, and norms say how long they were. .txt is what
    gensim's KeyedVectors.load_word2vec_format reads; the arrays of .npz initialise an embedding
    layer. A state folder is read also while its worker runs.

    **Examples**

    $ walkstream export --out vectors.npz

    $ walkstream export --out vectors.txt --state /data/1

    $ walkstream export --out vectors.parquet --from-topic --commit 1200

    $ walkstream export --out neighbours.jsonl --i2i 50 --mode next
    """
    from streamer.export import run as module

    loaded = load(config, overrides)
    if from_topic and state is not None:
        raise typer.BadParameter("--state and --from-topic: one or the other")
    if mode != "similar" and i2i is None:
        raise typer.BadParameter("--mode is for --i2i")
    folder = None if from_topic else state or Path(loaded.state.dir)
    module.run(loaded, out, fmt, folder, commit, vectors, i2i, mode, force)


def inspect(
    state: State = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """What a state folder holds: items, clusters, offsets, space.

    **Examples**

    $ walkstream inspect --state /data/1
    """
    from streamer.inspect import folder as module

    loaded = load(config, overrides)
    module.run(state or Path(loaded.state.dir), loaded.clusters.min_items, as_json)


def plot(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A name that ends in .png, or in .html.")
    ],
    state: State = None,
    by: Annotated[
        str, typer.Option(metavar="ATTRIBUTE", help="The attribute that names the clusters.")
    ] = "category",
    labels: Annotated[
        int, typer.Option(min=0, metavar="N", help="Name the N items with most updates.")
    ] = 30,
    projection: Annotated[
        Literal["auto", "pca", "umap"],
        typer.Option(help="How vectors become a plane; auto takes UMAP if it is installed."),
    ] = "auto",
    force: Force = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Draw a map of the items, coloured by cluster, also while the worker runs.

    It needs `pip install ".[plot]"`, in the folder of Walkstream. Before there are clusters, items
    are coloured by the attribute.

    **Examples**

    $ walkstream plot --out map.png

    $ walkstream plot --state /data/1 --out map.html --by brand --labels 100
    """
    from streamer.inspect import plot as module

    loaded = load(config, overrides)
    folder, awaited = state or Path(loaded.state.dir), loaded.clusters.min_items
    module.run(folder, out, by, labels, projection, awaited, force)


def cluster(
    partitions: Annotated[
        bool,
        typer.Option("--partitions", help="Each partition of the clicks and of the items too."),
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Who holds what: the workers of app.name, their partitions, and how far each is.

    All of it comes from the group and the topics: no worker is asked, and none need run. Who
    committed once and is no member now is told, and what nobody holds. A worker that was killed
    stays a member until its session is over: 20 s, unless kafka.session.timeout.ms or the brokers
    say otherwise. What is behind is not committed yet. Exits with 3 if there is no model yet.

    **Examples**

    $ walkstream cluster

    $ walkstream cluster --partitions --config production.toml

    $ walkstream cluster --json
    """
    from streamer.inspect import cluster as module

    module.run(load(config, overrides), partitions, as_json)


def check_topic(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic that holds clicks.")],
    sample: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Read the last N records.")
    ] = 1000,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Read a sample of an existing topic, and print the settings that make clicks of it.

    Nothing is changed, in Kafka or here. The settings go to standard output, and the report to
    standard error. Exits with 3 if no record of the sample is a click, or hardly meant as one.

    **Examples**

    $ walkstream check-topic web.events > lines.toml

    $ walkstream check-topic web.events --set kafka.bootstrap.servers=broker:9092

    $ walkstream check-topic orders --config shop.toml --sample 10000
    """
    from streamer.inspect import check_topic as module

    module.run(load(config, overrides), topic, sample, as_json)
