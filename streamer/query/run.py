"""Neighbours of an item, of a session, or of many of both: what `walkstream query` prints."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.markup import escape
from rich.table import Table

from streamer import counts
from streamer.errors import ConfigError, WalkstreamError
from streamer.query.choice import ALL, Choice
from streamer.query.index import Answer, Index, Mode, Neighbour
from streamer.query.names import name_of
from streamer.query.shelves import published as published
from streamer.state.folders import reading
from streamer.terminal import Console, say
from streamer.wording import counted

STDIN = "-"
"""Given as the item, it makes each line of standard input a query."""

NO_GRAPH = """\
hybrid goes without the graph as yet: it is in the state folder from the first checkpoint on, which
a worker takes after checkpoint.seconds"""

TITLES = {"similar": "Items like", "next": "Items clicked after", "hybrid": "Items to offer after"}


@dataclass(frozen=True)
class Options:
    """The options of a query."""

    k: int = 10
    mode: Mode = "similar"
    min_updates: int = 0
    decay: float = 0.5
    as_json: bool = False
    choice: Choice = ALL


def run(state: Path, items: Sequence[str], options: Options) -> None:
    """Print the neighbours of an item, of a session, or, for "-", of each line of standard input.

    WalkstreamError if there is no such folder, or no vector for the query. Of many, those that fail
    are printed where their answers would be, and the error comes last.
    """
    many = list(items) == [STDIN]
    if STDIN in items and not many:
        raise ConfigError("- stands for the lines of standard input: give it alone, or items")
    if many and sys.stdin is None:
        raise ConfigError("standard input is closed: send queries into it, one a line")
    with reading(state) as store:
        index, placed = Index(store, resident=many), counts.with_vector(store)
        if options.mode == "hybrid" and not index.ranker.arcs.there:
            print(NO_GRAPH, file=sys.stderr)
        if many:
            _answer_lines(index, placed, options)
        else:
            _print(_answer(index, items, options), placed, options)


def _answer(index: Index, items: Sequence[str], options: Options) -> Answer:
    return index.neighbours(
        items, options.k, options.mode, options.min_updates, options.decay, options.choice
    )


def _answer_lines(index: Index, placed: int, options: Options) -> None:
    """Answer each line: an item, or those of a session with tabs between, the newest last."""
    asked = failed = 0
    for number, line in enumerate(sys.stdin, 1):
        items = [item for item in line.strip().split("\t") if item]
        if not items:
            continue
        asked += 1
        try:
            answer = _answer(index, items, options)
        except WalkstreamError as error:
            failed += 1
            if options.as_json:
                query = {"line": number, "item": items[-1], "session": items, "mode": options.mode}
                print(msgspec.json.encode(query | {"error": str(error)}).decode())
            else:
                hint = ". Items of a session have tabs between" if " " in items[-1] else ""
                print(f"line {number}: {error}{hint}", file=sys.stderr)
            continue
        _print(answer, placed, options, number)
    if failed:
        queries = counted(asked, "query", "queries")
        raise WalkstreamError(f"no answer to {failed:,} of {queries}, see above")


def _print(answer: Answer, placed: int, options: Options, line: int | None = None) -> None:
    min_updates = options.min_updates
    if options.as_json:
        shown = msgspec.structs.asdict(answer) | {"items": placed}
        if line is not None:
            shown = {"line": line} | shown
        print(msgspec.json.encode(shown).decode())
        return
    known = [item for item in answer.session if item not in answer.unknown] or [answer.item]
    title = f"{TITLES[answer.mode]} {', '.join(map(escape, known))}"
    Console().print(table(title, answer.neighbours))
    print(f"looked at {answer.candidates:,} of {counted(placed, 'item')}")
    if not answer.neighbours and min_updates:
        say(
            f"none of them has {counted(min_updates, 'update')} (--min-updates): ask with fewer; "
            "`walkstream query` without the option shows how many each has"
        )
    if not answer.neighbours and options.choice != ALL:
        say("nothing passes --where and --min-score: ask with less")
    if answer.unknown:
        print(f"without {', '.join(answer.unknown)}: no vector")


def table(title: str, neighbours: Sequence[Neighbour]) -> Table:
    """Neighbours for people."""
    table = Table(title=title)
    for column in ("#", "item", "name", "score", "cluster", "updates"):
        table.add_column(column, justify="left" if column in ("item", "name") else "right")
    for rank, found in enumerate(neighbours, 1):
        cluster = "" if found.cluster is None else str(found.cluster)
        name = escape(name_of(found.attributes))
        score, updates = f"{found.score:.3f}", f"{found.updates:,}"
        table.add_row(str(rank), escape(found.item), name, score, cluster, updates)
    return table
