"""The hottest items of a cluster: recall by cluster, which needs no item to ask by."""

import difflib
from pathlib import Path

import msgspec
import numpy as np
from rich.markup import escape
from rich.table import Table

from core.placing.rules import Rules
from streamer import counts
from streamer.errors import WalkstreamError
from streamer.query.choice import Choice
from streamer.query.names import name_of
from streamer.state import packing, records
from streamer.state.folders import reading
from streamer.state.store import Attributes, Store, cluster_prefix
from streamer.terminal import Console, say
from streamer.wording import counted
from streamer.worker import checkpoint


class Hot(msgspec.Struct, frozen=True):
    item: str
    clicks: float
    """Decayed weight of its clicks, as of the newest click on an item of the cluster."""
    share: float
    """Of those of all members that pass the filter."""
    attributes: Attributes


class Hottest(msgspec.Struct, frozen=True, omit_defaults=True):
    cluster: int
    members: int
    """Items of the cluster that pass the filter."""
    items: list[Hot]
    name: str | None = None
    """Of a cluster by rules."""


def hottest(store: Store, cluster: int, k: int, choice: Choice) -> Hottest:
    """The k items of a cluster with most decayed clicks, as of the folder's last sweep.

    WalkstreamError if there is no such cluster, or nobody is in it.
    """
    prefix = cluster_prefix(cluster)
    found = [key.removeprefix(prefix) for key, _ in store.scan("clusters", prefix)]
    if (space := store.space) is not None and space.since:
        found = [found[n] for n in np.flatnonzero(store.published(found) >= space.since).tolist()]
    if not found:
        there = sorted(counts.cluster_sizes(store))
        raise WalkstreamError(
            f"{store.path}: nothing is in cluster {cluster}; "
            + (f"there are {there[0]} to {there[-1]}" if there else "there are no clusters yet")
        )
    members = [
        (key, attributes) for key in found if choice.fits(attributes := store.attributes(key))
    ]
    nodes = [checkpoint.node(store, key) for key, _ in members]
    now = max((node.seen for node in nodes if node is not None), default=0)
    clicks = [checkpoint.clicks_at(node, now) for node in nodes]
    total = sum(clicks) or 1.0
    order = sorted(range(len(members)), key=lambda n: (-clicks[n], members[n][0]))[:k]
    hot = [Hot(members[n][0].decode(), clicks[n], clicks[n] / total, members[n][1]) for n in order]
    return Hottest(cluster, len(members), hot)


def rules_of(store: Store) -> Rules | None:
    """By which items are in clusters, if they are by rules."""
    return packing.unpack_placement(store.meta(records.PLACEMENT), 1).rules


def number_of(store: Store, cluster: str) -> int:
    """The number of a cluster, by its name or by that number. WalkstreamError if it is neither."""
    rules = rules_of(store)
    sizes = rules.sizes if rules else []
    called = {rules.name(n): n for n, size in enumerate(sizes) if rules and (size or n == 0)}
    if (number := called.get(cluster)) is not None:
        return number
    if cluster.isascii() and cluster.isdecimal() and int(cluster) < 2**31:
        return int(cluster)
    if near := difflib.get_close_matches(cluster, called, 3):
        hint = f"near it are {', '.join(map(repr, near))}"
    elif called:
        hint = "`walkstream inspect` lists their names"
    else:
        hint = "clusters by vectors have numbers"
    raise WalkstreamError(f"{store.path}: there is no cluster {cluster!r}; {hint}")


def run(state: Path, cluster: str, k: int, choice: Choice, as_json: bool) -> None:
    """Print those of the cluster with this number or name."""
    with reading(state) as store:
        number, rules = number_of(store, cluster), rules_of(store)
        found = hottest(store, number, k, choice)
    if rules is not None:
        found = msgspec.structs.replace(found, name=rules.name(number))
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    named = f"{found.cluster}" + (f", {found.name}" if found.name else "")
    table = Table(title=f"Most clicked of cluster {escape(named)}")
    for column in ("#", "item", "name", "clicks", "share"):
        table.add_column(column, justify="left" if column in ("item", "name") else "right")
    for rank, one in enumerate(found.items, 1):
        name = escape(name_of(one.attributes))
        table.add_row(str(rank), escape(one.item), name, f"{one.clicks:,.1f}", f"{one.share:.1%}")
    Console().print(table)
    say(f"of {counted(found.members, 'item')}; clicks decay by graph.half_life")
