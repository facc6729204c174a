"""Commands that look and change nothing: query, inspect."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.options import (
    AsJson,
    State,
)


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


def inspect(state: State = Path("state"), as_json: AsJson = False) -> None:
    """What a state folder holds: items, clusters, offsets, space.

    **Examples**

    $ walkstream inspect --state /data/1
    """
    from streamer import inspection as module

    module.run(state, as_json)
