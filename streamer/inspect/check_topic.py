"""`walkstream check-topic`: reads a sample of a topic, and says what a worker would make of it."""

import difflib
import sys
import time
from dataclasses import replace

import msgspec
from confluent_kafka.admin import AdminClient
from rich import box
from rich.markup import escape
from rich.table import Table

from streamer.decode.formats import cut
from streamer.errors import Refused, WalkstreamError
from streamer.inspect.topic_report import Report, examine
from streamer.kafka import clients, rights, topics
from streamer.kafka.clients import Partition
from streamer.kafka.newest import newest
from streamer.settings.sections import Config
from streamer.terminal import Console
from streamer.wording import amounts, counted

FIELD_WIDTH = 28
"""Columns for a path at least, where it is so long; the next line has the rest of a longer one."""
MOST_FIELDS = 40
"""Fields that people are shown at most, besides those that are used."""


def run(config: Config, topic: str, sample: int, as_json: bool) -> None:
    """Print what the last records of a topic hold.

    The settings go to standard output alone, all that is said about them to standard error; JSON
    of all of it goes to standard output. Refused if no click is among the records, or if they are
    hardly meant to be clicks.
    """
    named = replace(config, topics=replace(config.topics, clicks=topic))
    with rights.allowed(named, "check-topic") as admin:
        _run(config, admin, topic, sample, as_json)


def _run(config: Config, admin: AdminClient, topic: str, sample: int, as_json: bool) -> None:
    partitions = _partitions(admin, topic)
    begins, ends = clients.begins(admin, partitions), clients.ends(admin, partitions)
    consumer = clients.tail_consumer(config)
    try:
        messages = newest(consumer, begins, ends, sample)
    finally:
        consumer.close()
    if not messages:
        raise Refused(f"{topic}: the topic has no records to look at: send some clicks first")
    misfits = _misfits(config, topic, admin)
    found = examine(config, topic, len(partitions), messages, int(time.time() * 1000))
    found = msgspec.structs.replace(found, warnings=found.warnings + misfits)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        show(found)
    if found.suspicions:
        raise Refused(f"{topic}: this is hardly a topic of clicks: {'; '.join(found.suspicions)}")
    if not found.clicks:
        raise Refused(f"{topic}: no click was understood in {counted(found.records, 'record')}")


def _partitions(admin: AdminClient, topic: str) -> list[Partition]:
    # All topics are asked for: asking for one by name may create it.
    there = admin.list_topics(timeout=clients.CALL_SECONDS).topics
    if topic not in there:
        near = difflib.get_close_matches(topic, there, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise Refused(f"{topic}: there is no such topic, or you may not see it{hint}")
    return [(topic, partition) for partition in sorted(there[topic].partitions)]


def _misfits(config: Config, topic: str, admin: AdminClient) -> list[str]:
    """What a check says of how the topic is set up."""
    if not config.topics.check:
        return []
    named = replace(config, topics=replace(config.topics, clicks=topic))
    try:
        return topics.check(admin, topics.specs(named)[:1])
    except WalkstreamError as error:
        return [f"whether the topic keeps clicks for long enough is not known: {error}"]


def show(found: Report) -> None:
    """Print it for people."""
    console = Console(stderr=True)
    console.soft_wrap = not console.is_terminal
    console.print(
        f"[bold]{escape(found.topic)}[/bold]: the last {counted(found.records, 'record')} of "
        f"{counted(found.partitions, 'partition')}"
    )
    for form, count in found.forms.items():
        console.print(f"  {count:,} {form}")
    if found.fields:
        console.print(_fields(found, console.width))
    if found.event_types:
        console.print(_types(found))
    _print_verdict(found, console)
    for warning in found.warnings:
        console.print(f"! {escape(warning)}", style="yellow")
    console.print("\n[bold]Settings for walkstream.toml[/bold] (the rest stays as it is)\n")
    sys.stderr.flush()
    # Not wrapped, and not marked up: to be copied, or to be sent into a file.
    print(found.settings or "# none: the defaults fit")


def _fields(found: Report, width: int) -> Table:
    roles = {source.path: name for name, source in found.sources.items()}
    table = Table(title="Fields", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    # A path is to be copied: it is folded where it is long, and never cut.
    longest = max((len(one.path) for one in found.fields), default=5)
    table.add_column("field", overflow="fold", min_width=min(FIELD_WIDTH, longest))
    table.add_column("is", no_wrap=True)
    table.add_column("type", max_width=8)
    table.add_column("in", justify="right", no_wrap=True)
    table.add_column("values", justify="right", no_wrap=True)
    table.add_column("example", max_width=max(12, width - 68))
    for one in found.fields:
        role = roles.pop(one.path, "")
        if not role and table.row_count >= MOST_FIELDS:
            continue
        if role == "ts":
            role = f"ts in {found.time_unit}"
        table.add_row(
            escape(one.path), f"[bold green]{role}", ", ".join(one.types), f"{one.present:.0%}",
            f"{one.distinct:,}", escape(cut(one.example, max(12, width - 68))),
        )  # fmt: skip
    for path, role in roles.items():
        table.add_row(
            escape(path), f"[bold green]{role}", "", "", "", escape(found.sources[role].why)
        )
    if (hidden := len(found.fields) - MOST_FIELDS) > 0:
        table.caption = f"and {hidden:,} more, which --json lists"
    return table


def _types(found: Report) -> Table:
    table = Table("event type", "records", "weight", "", title="Event types")
    for name, one in found.event_types.items():
        table.add_row(escape(name), f"{one.count:,}", f"{one.weight:g}", one.note)
    return table


def _print_verdict(found: Report, console: Console) -> None:
    every = found.clicks + found.bad
    console.print(
        f"With the settings below, {found.clicks:,} of {counted(every, 'click')} can be used "
        f"({found.clicks / max(1, every):.1%}): {amounts(user=found.users, item=found.items)}. "
        f"They were read from {counted(found.records, 'record')}; a record has none, one or many"
    )
    if found.unwanted:
        console.print(f"  {found.unwanted:,} of types that weigh 0 are left out besides")
    for reason, one in found.unused.items():
        console.print(
            f"  {one.count:,} {reason}, such as {escape(one.where)}: {escape(one.message)}"
        )
        console.print(f"    {escape(one.value)}", style="dim")
