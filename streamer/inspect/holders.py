"""Who holds what, as the group and the topics say it: no worker is asked.

The group says who has which partitions of the clicks, and from these follows who owns which of the
items. `model-state` says how far the clicks of each were processed, and when each worker committed.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, ConsumerGroupState, Message
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, MemberDescription

from streamer.errors import Refused
from streamer.kafka import clients, topics
from streamer.kafka.clients import Partition
from streamer.kafka.members import described
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.commits import Manifest
from streamer.state.model_state import reserved_records
from streamer.state.records import Progress, Space, Swept
from streamer.wording import counted

WINDOW = 20_000
"""So many of the last records of a partition are read at first: what is looked for stands near the
end as long as a worker runs."""
SETTLE_SECONDS = 10.0
"""How long a group may share out its partitions anew before it is told that it does."""
SETTLED = (ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
"""States in which a group knows who has what."""


class Member(msgspec.Struct, frozen=True):
    """One member of the group."""

    name: str
    """What the group calls it."""
    instance: str | None
    """Its `app.instance`; None for a member that is no worker of this app."""
    host: str
    clicks: list[int]
    """Partitions of the clicks that it holds; without one it stands by."""
    items: list[int]
    """Partitions of the items that it owns: of their rows, not of the topic `items`."""
    leads: bool
    """Whether it writes what there is once, as it holds partition 0 of the clicks."""
    behind: int
    """Records of its clicks that are in no commit."""
    commit: int | None
    """Its newest one; None before the first."""
    age_seconds: float | None
    """Since that was written."""


class Gone(msgspec.Struct, frozen=True):
    """Who committed once, and is no member now."""

    instance: str
    app: str
    """Another one than `app.name` if the model was handed over since then."""
    commit: int
    age_seconds: float


class Clicks(msgspec.Struct, frozen=True):
    """A partition of the clicks."""

    partition: int
    holder: str | None
    """Name of the member; None if nobody holds it."""
    offset: int | None
    """Of the next record that a commit is to have; None if no commit says so."""
    end: int
    behind: int


class Items(msgspec.Struct, frozen=True):
    """A partition of the items."""

    partition: int
    owner: str | None
    """Name of the member; None if nobody owns it."""
    version: int
    """The greatest that its items have; 0 if there are none."""


class Cut(msgspec.Struct, frozen=True):
    """Where the last sweep of the graph began that is over: who lost the state folder folds the
    evidence since then once more."""

    number: int
    """Of the newest evidence that was folded when it began."""
    age_seconds: float
    """Since the sweep was over."""
    evidence: int
    """Records of `transitions` since then, markers of transactions among them."""


class Cluster(msgspec.Struct, frozen=True):
    """What `cluster --json` prints."""

    app: str
    state: str
    """Of the group: `stable`, `empty`, `dead` if there is none, or another where it is sharing out
    its partitions, and does not say yet who has what."""
    protocol: str
    """Of the group: `classic`, `consumer` or `unknown`."""
    members: list[Member]
    unheld: list[int]
    """Partitions of the clicks that nobody holds."""
    cut: Cut | None
    """None before the first sweep is over."""
    gone: list[Gone]
    """Who went last is first."""
    clicks: list[Clicks]
    items: list[Items]

    @property
    def is_settled(self) -> bool:
        return self.state in {state.name.lower() for state in SETTLED}


class Found(NamedTuple):
    """What the topics say."""

    space: Space
    reserved: Mapping[bytes, Message]
    clicks: Mapping[Partition, tuple[int, int]]
    """Where the log of each partition begins and ends."""
    evidence: int
    """The end of `transitions`."""


def holders(config: Config, admin: AdminClient) -> Cluster:
    """Who holds what now. Refused if there is no model of this app."""
    # Asked in this order, nobody is taken for gone who committed just now for the first time.
    found = _found(config, admin)
    return examine(config, _settled(config, admin), found, time.time())


# -- what the group and the topics say -----------------------------------------------------------


def _settled(config: Config, admin: AdminClient) -> ConsumerGroupDescription:
    """The group when all partitions are shared out, or as it is after a while."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        group = described(admin, config)
        if group.state in SETTLED or time.monotonic() > deadline:
            return group
        time.sleep(0.2)


def _found(config: Config, admin: AdminClient) -> Found:
    names = config.topics.clicks, config.topics.model_state, config.topics.transitions
    there = topics.describe(admin, names)
    if missing := set(names) - there.keys():
        raise Refused(
            f"there is no model yet: topics {sorted(missing)} do not exist. Run `walkstream topics "
            "create`, or name the right topics in section [topics]"
        )
    clicks, state, evidence = (
        [(name, partition) for partition in range(len(there[name].partitions))] for name in names
    )
    with closing(clients.tail_consumer(config)) as consumer:
        space, reserved = _reserved(config, admin, consumer, state, clicks)
    begins, ends = clients.begins(admin, clicks), clients.ends(admin, clicks)
    bounds = {partition: (begins[partition], ends[partition]) for partition in clicks}
    end = clients.ends(admin, evidence[:1], committed=True)
    return Found(space, reserved, bounds, end[evidence[0]])


def _reserved(
    config: Config, admin: AdminClient, consumer: Consumer, state: Sequence[Partition],
    clicks: Iterable[Partition],
) -> tuple[Space, dict[bytes, Message]]:  # fmt: skip
    """The header of the model, and the newest records of the reserved keys that are told.

    Partition 0 of `model-state` is read whole: it has the header, and who committed long ago. Of
    the others only the end is read, and more of it as long as something is missing.
    """
    begins, ends = clients.begins(admin, state), clients.ends(admin, state, committed=True)
    found = _read(consumer, {state[0]: begins[state[0]]}, ends)
    space = _space(config, found, len(state))
    wanted = {where: {records.version_key(where[1])} for where in state[: space.partitions]}
    for topic, partition in clicks:
        key = records.progress_key(topic, partition)
        wanted[state[records.place(key, space.partitions)]].add(key)
    left, size = list(wanted)[1:], WINDOW
    while left:
        starts = {where: max(begins[where], ends[where] - size) for where in left}
        found |= _read(consumer, starts, ends)
        left = [p for p in left if starts[p] > begins[p] and not wanted[p] <= found.keys()]
        size *= 10
    return space, found


def _read(
    consumer: Consumer, begins: Mapping[Partition, int], ends: Mapping[Partition, int]
) -> dict[bytes, Message]:
    """What is no worker's is passed over: whoever looks here wants to know of the others."""
    return reserved_records(consumer, begins, {p: ends[p] for p in begins}, skips_strange=True)


def _space(config: Config, found: Mapping[bytes, Message], partitions: int) -> Space:
    """The header. Refused if there is none, or if it is that of another app or another topic."""
    topic, app = config.topics.model_state, config.app.name
    if records.SPACE not in found:
        raise Refused(
            f"{topic} has no model yet: start a worker (walkstream worker), which makes one"
        )
    space = msgspec.msgpack.decode(found[records.SPACE].value() or b"", type=Space)
    space.check_format(f"the topic {topic}")
    if space.app not in ("", app):
        raise Refused(
            f"{topic} is the model of app {space.app!r}, and app.name is {app!r}: set app.name to "
            "that, or topics.* to those of this app"
        )
    if space.partitions > partitions:
        raise Refused(
            f"{topic} has {counted(partitions, 'partition')}, and the model is in "
            f"{space.partitions}: `walkstream topics check` says what to do"
        )
    return space


# -- what follows from it ------------------------------------------------------------------------


def examine(config: Config, group: ConsumerGroupDescription, found: Found, now: float) -> Cluster:
    """Put together what the group and the topics say; `now` is in Unix seconds."""
    app, topic = config.app.name, config.topics.clicks
    held = {
        where.partition: member
        for member in group.members
        for where in member.assignment.topic_partitions
        if where.topic == topic
    }
    clicks = [_clicks(found, where, held.get(where[1])) for where in sorted(found.clicks)]
    items = [_items(found, p, held, len(clicks)) for p in range(found.space.partitions)]
    committed = _committed(found, now)
    members = [_member(app, one, clicks, items, committed) for one in group.members]
    instances = {(app, member.instance) for member in members}
    return Cluster(
        app,
        group.state.name.lower(),
        group.type.name.lower(),
        sorted(members, key=lambda member: (not member.clicks, member.clicks, member.name)),
        [one.partition for one in clicks if one.holder is None],
        _cut(found, now),
        sorted(
            (gone for key, gone in committed.items() if key not in instances),
            key=lambda gone: (gone.age_seconds, gone.app, gone.instance),
        ),
        clicks,
        items,
    )


def _name(member: MemberDescription) -> str:
    return member.group_instance_id or member.member_id


def _clicks(found: Found, where: Partition, holder: MemberDescription | None) -> Clicks:
    begin, end = found.clicks[where]
    record = found.reserved.get(records.progress_key(*where))
    offset = None
    if record is not None:
        offset = msgspec.msgpack.decode(record.value() or b"", type=Progress).offset
    behind = max(0, end - (begin if offset is None else offset))
    return Clicks(where[1], None if holder is None else _name(holder), offset, end, behind)


def _items(
    found: Found, partition: int, held: Mapping[int, MemberDescription], clicks: int
) -> Items:
    """Who has the clicks partition that this one goes with owns it."""
    owner = held.get(partition * clicks // found.space.partitions)
    record = found.reserved.get(records.version_key(partition))
    version = 0 if record is None else msgspec.msgpack.decode(record.value() or b"", type=int)
    return Items(partition, None if owner is None else _name(owner), version)


def _committed(found: Found, now: float) -> dict[tuple[str, str], Gone]:
    """The newest commit of each worker that ever made one, by app and instance."""
    out = {}
    for key, record in found.reserved.items():
        if records.is_manifest(key):
            manifest = msgspec.msgpack.decode(record.value() or b"", type=Manifest)
            app, instance = manifest.app, manifest.instance
            out[app, instance] = Gone(instance, app, manifest.commit, _age(record, now))
    return out


def _member(
    app: str, member: MemberDescription, clicks: Sequence[Clicks], items: Sequence[Items],
    committed: Mapping[tuple[str, str], Gone],
) -> Member:  # fmt: skip
    name, prefix = _name(member), f"{app}-"
    is_worker = member.group_instance_id is not None and name.startswith(prefix)
    instance = name.removeprefix(prefix) if is_worker else None
    newest = committed.get((app, instance)) if instance is not None else None
    own = [one for one in clicks if one.holder == name]
    return Member(
        name,
        instance,
        member.host.removeprefix("/"),
        [one.partition for one in own],
        [one.partition for one in items if one.owner == name],
        any(one.partition == 0 for one in own),
        sum(one.behind for one in own),
        None if newest is None else newest.commit,
        None if newest is None else newest.age_seconds,
    )


def _cut(found: Found, now: float) -> Cut | None:
    record = found.reserved.get(records.SWEPT)
    if record is None:
        return None
    swept = msgspec.msgpack.decode(record.value() or b"", type=Swept)
    return Cut(swept.commit, _age(record, now), max(0, found.evidence - swept.offset))


def _age(record: Message, now: float) -> float:
    _, ms = record.timestamp()
    return round(max(0.0, now - ms / 1000), 1)
