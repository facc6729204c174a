"""Commands that measure: bench, evaluate."""

from typing import Annotated, Literal

import typer

from streamer.cli.options import AsJson


def bench(
    name: Annotated[
        Literal["skipgram", "walks", "graph", "ingest", "index", "round", "all"],
        typer.Argument(metavar="NAME", help="skipgram, walks, graph, ingest, index, round or all."),
    ],
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Also measure with so many threads.")
    ] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller inputs: sooner, and rougher.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How fast the engine is on this machine, beside a peer in the same run.

    The two take turns, at least five times each, and the medians count: compare the ratio, not the
    figures, between machines. Peers come with `pip install 'walkstream[bench]'`; one that pins old
    versions gets an environment of its own in `~/.cache/walkstream`.

    **Examples**

    $ walkstream bench skipgram --threads 2

    $ walkstream bench all --quick --json > results.jsonl
    """
    from streamer.bench import run as module
    from streamer.bench.results import Options

    module.run(name, Options(threads, quick), as_json)
