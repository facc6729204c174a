"""`walkstream cluster`: who holds what, for people and for scripts."""

import msgspec
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from streamer.inspect.holders import Cluster, Gone, Member, holders
from streamer.kafka import rights
from streamer.kafka.clients import label
from streamer.settings.sections import Config
from streamer.terminal import Console
from streamer.wording import ago, counted, ranges

MOST_GONE = 8
"""So many that are gone are named to people: each container that is made anew may leave one."""


def run(config: Config, partitions: bool, as_json: bool) -> None:
    """Print who holds what; with `partitions`, each of them too. Refused if there is no model."""
    with rights.allowed(config, "cluster") as admin:
        cluster = holders(config, admin)
    if as_json:
        print(msgspec.json.encode(cluster).decode())
    else:
        show(cluster, config, partitions)


def show(cluster: Cluster, config: Config, partitions: bool) -> None:
    """Print it for people."""
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal
    console.print(
        f"group [bold]{escape(cluster.app)}[/bold]: {cluster.state.replace('_', ' ')}, "
        f"{counted(len(cluster.members), 'member')}, {cluster.protocol} protocol"
    )
    if cluster.members:
        console.print(_members(cluster))
    for line in _alarms(cluster, config):
        console.print(f"! {escape(line)}", style="bold red")
    for member in cluster.members:
        if member.instance is None:
            console.print(
                f"! {escape(member.name)} is no worker of this app: stop it, or give it a group of "
                "its own",
                style="yellow",
            )
    console.print(_cut(cluster, config))
    if cluster.gone:
        gone = ", ".join(_gone(one, cluster.app) for one in cluster.gone[:MOST_GONE])
        more = len(cluster.gone) - MOST_GONE
        gone += f" and {more:,} more, which --json lists" if more > 0 else ""
        console.print(f"committed once, and no members now: {escape(gone)}")
    if partitions:
        console.print(_clicks(cluster, config))
        console.print(_items(cluster, config))


def _alarms(cluster: Cluster, config: Config) -> list[str]:
    """What is wrong with the whole of it."""
    clicks = config.topics.clicks
    if not cluster.is_settled:
        return [
            "the group is sharing out its partitions, and only says who has what when it is done: "
            "look again in a moment"
        ]
    if not cluster.members:
        return ["no worker is in the group: no click is learned. Start one"]
    if cluster.unheld:
        return [
            f"nobody holds {counted(len(cluster.unheld), 'partition')} of {clicks} "
            f"({ranges(cluster.unheld)}): clicks that come there are not learned. Restart the "
            "workers, and look at the group's coordinator if that does not help"
        ]
    return []


def _members(cluster: Cluster) -> Table:
    table = Table(box=SIMPLE_HEAD)
    table.add_column("instance", overflow="fold")
    table.add_column("host", overflow="fold")
    table.add_column("clicks", overflow="fold")
    table.add_column("items", overflow="fold")
    table.add_column("behind", justify="right", no_wrap=True)
    table.add_column("commit", justify="right", no_wrap=True)
    table.add_column("written", no_wrap=True)
    for member in cluster.members:
        if member.commit is None or member.age_seconds is None:
            newest = "none", ""
        else:
            newest = f"{member.commit:,}", ago(member.age_seconds)
        cells = (
            _called(member) + " (leads)" * member.leads,
            member.host,
            ranges(member.clicks) or ("stands by" if cluster.is_settled else "?"),
            ranges(member.items),
            f"{member.behind:,}",
            *newest,
        )
        table.add_row(*map(escape, cells))
    return table


def _called(member: Member) -> str:
    return member.name if member.instance is None else member.instance


def _gone(one: Gone, app: str) -> str:
    name = one.instance if one.app == app else f"{one.app}-{one.instance}"
    return f"{name} (commit {one.commit:,}, {ago(one.age_seconds)})"


def _cut(cluster: Cluster, config: Config) -> str:
    if (cut := cluster.cut) is None:
        return "no sweep of the graph is over yet: all evidence is folded again if a folder is lost"
    return (
        f"the last sweep of the graph was over {ago(cut.age_seconds)}, and began after evidence "
        f"{cut.number:,}: {counted(cut.evidence, 'record')} of "
        f"{escape(config.topics.transitions)} came since"
    )


def _clicks(cluster: Cluster, config: Config) -> Table:
    table = Table("clicks", "holder", "offset", "end", "behind", box=SIMPLE_HEAD)
    for column in table.columns[2:]:
        column.justify = "right"
    for one in cluster.clicks:
        table.add_row(
            escape(label((config.topics.clicks, one.partition))), _holder(one.holder),
            "none" if one.offset is None else f"{one.offset:,}", f"{one.end:,}", f"{one.behind:,}",
        )  # fmt: skip
    return table


def _items(cluster: Cluster, config: Config) -> Table:
    table = Table("items", "owner", "version", box=SIMPLE_HEAD)
    table.columns[2].justify = "right"
    for one in cluster.items:
        name = label((config.topics.model_state, one.partition))
        table.add_row(escape(name), _holder(one.owner), f"{one.version:,}")
    return table


def _holder(name: str | None) -> str:
    return "[bold red]nobody[/]" if name is None else escape(name)
