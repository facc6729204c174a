"""The header of `model-state`: whose model it is, and of which topics.

A worker begins only where it fits. What a topic that was made anew means depends on its role, and
so does what an operator can do: each difference says both.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import NamedTuple

import msgspec
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaException,
)
from confluent_kafka.admin import AdminClient

from core.graph import graph
from streamer.errors import Refused
from streamer.kafka import clients
from streamer.kafka.clients import Partition
from streamer.kafka.failures import failure
from streamer.kafka.identity import ROLES, USERS, Identity, identity
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config, TopicSettings
from streamer.state import commits, records
from streamer.state import store as stores
from streamer.state.model_state import reserved
from streamer.state.records import Layout, Progress, Space
from streamer.state.store import Store
from streamer.wording import counted
from streamer.worker import checkpoint, claiming, publishers, repair
from streamer.worker.readback import Readback

log = logging.getLogger(__name__)

VECTORS = ("item_vectors", USERS)
"""Topics of vectors: what one lacks is published again."""

LOSS, REPAIR, NEVER, TOLD = "--accept-loss", "--repair", "", "told"
"""What lets a worker begin in spite of a difference: an option, nothing, or nothing needed."""


class Accepted(NamedTuple):
    """What the operator has agreed to."""

    loss: bool = False
    repair: bool = False

    def includes(self, option: str) -> bool:
        return {LOSS: self.loss, REPAIR: self.repair, TOLD: True}.get(option, False)


class Difference(NamedTuple):
    """Something that is not as the model knows it."""

    role: str
    accepted_by: str
    text: str
    is_harmless: bool = False
    """Whether nothing is lost by it, and nothing need be done."""


def differences(
    app: str, topics: TopicSettings, header: Space, known: Mapping[str, str], now: Identity
) -> Iterator[Difference]:
    """How the header, or the ids `known` to a folder where it has none, differ from what is."""
    state = topics.model_state
    if header.app not in ("", app):
        yield Difference(
            "app",
            NEVER,
            f"{state} is the model of app {header.app!r}, and app.name is {app!r}: two apps on one "
            "model would learn every click twice. Use topics of its own for another app. To go on "
            f"with this model under the new name, stop the workers of {header.app!r} and run "
            f"`walkstream hand-over --from {header.app}` with these settings",
        )
    was = ids(header) or known
    for role in ("cluster", *ROLES, USERS):
        if was.get(role) and role in now.ids and was[role] != now.ids[role]:
            accepted_by, means = _RENEWED[role]
            name = str(getattr(topics, role, "the cluster"))
            change = f"its id was {was[role]} and is {now.ids[role]}"
            harmless = role == "dead_letters"
            yield Difference(role, accepted_by, f"{name}: {change}. {means}", harmless)
    layouts = header.unused | header.topics
    for role in "model_state", "item_vectors", USERS:
        count = layouts[role].partitions if role in layouts else 0
        there = now.topics[role].partitions if role in now.topics else count
        if there < count and was.get(role, "") in ("", now.ids.get(role, was.get(role, ""))):
            has = counted(there, "partition")
            text = _SHRUNK.format(name=getattr(topics, role), there=has, count=count)
            yield Difference(role, NEVER, text)
    for role, layout in layouts.items():
        if role in now.topics and now.topics[role].partitions > layout.partitions:
            has = counted(now.topics[role].partitions, "partition")
            counts = f"{has} instead of {layout.partitions}"
            text = _GROWN.get(role, _GROWN_READ).format(count=layout.partitions)
            yield Difference(role, TOLD, f"{getattr(topics, role)} has {counts}. {text}", True)


_AGAIN = "It was deleted and created again, or section [topics] names another topic"
_RENEWED = {
    "cluster": (
        NEVER,
        "This model belongs to another cluster: look at kafka.bootstrap.servers. If the topics "
        "were copied here, their offsets do not fit: run `walkstream reset --topics`, and all is "
        "learned anew from the clicks that are here",
    ),
    "clicks": (
        LOSS,
        f"{_AGAIN}: how far it was read is void, and what the old one held and no commit had is "
        "lost. Start once with `walkstream worker --accept-loss`: it keeps the model and reads the "
        "new topic from its beginning. Or run `walkstream reset --topics`, and all is learned anew",
    ),
    "items": (
        LOSS,
        f"{_AGAIN}: attributes that it held and no commit had are lost. Start once with "
        "`walkstream worker --accept-loss`, which reads the new topic from its beginning, and "
        "publish the catalogue again",
    ),
    "item_vectors": (
        TOLD,
        f"{_AGAIN}: it lacks every vector that was published before. The worker publishes all of "
        "them again when it starts",
    ),
    USERS: (
        TOLD,
        f"{_AGAIN}: it lacks every user that was published before. The worker publishes those of "
        "its state folder again when it starts: of a folder that is gone too, users are known from "
        "their next clicks on",
    ),
    "model_state": (
        REPAIR,
        f"{_AGAIN}: the model is in the state folder only. Start once with `walkstream worker "
        "--repair`, which writes it to the new topic. Or run `walkstream reset --topics`, and all "
        "is learned anew from the clicks",
    ),
    "transitions": (
        LOSS,
        f"{_AGAIN}: what clicks did to the graph since it was written last is lost, unless the "
        "state folder is that of the worker that did it and was stopped well. Start once with "
        "`walkstream worker --accept-loss`, which goes on from the graph that there is",
    ),
    "dead_letters": (TOLD, f"{_AGAIN}: the dead letters that the old one held are gone"),
}
_SHRUNK = (
    "{name} has {there}, and the model is in {count}. Kafka takes none away, so it was "
    "deleted and created again: create it with {count} and start once with `walkstream worker "
    "--repair`. Or run `walkstream reset --topics`, and all is learned anew"
)
_GROWN_READ = "The new ones are read from their beginning"
_GROWN = {
    "model_state": "Kafka cannot take partitions away, and need not: rows stay in the first "
    "{count}, the others stay empty",
    "item_vectors": "Vectors stay in the first {count}, so that each item has one place, and "
    "readers of all partitions have what they had; the others stay empty. To use them, stop the "
    "worker, delete the topic, create it with as many as you want, and start once with "
    "`walkstream worker --repair`, which publishes all vectors again",
    USERS: "Users stay in the first {count}, so that each has one place; the others stay empty",
    "dead_letters": "New dead letters go to all of them",
}


def ids(header: Space) -> dict[str, str]:
    """The ids that a header knows: of the topics by role, and of the `cluster`."""
    return Identity(header.cluster, header.unused | header.topics).ids


def settle(
    config: Config, store: Store, now: Identity, accepted: Accepted, readback: Readback,
    transactions: Transactions, admin: AdminClient, read: int, member: Consumer | None = None,
    first: Callable[[], Mapping[Partition, int]] = dict,
) -> Space:  # fmt: skip
    """The header of the model, written anew where it was none, or says what is no more.

    Refused if it does not fit, or if another app is writing one right now. `read` is the offset up
    to which partition 0 of `model-state` was read, `member` that of the group, whose offsets are
    set with the progress. Where there is no progress, `first` says where the clicks begin, and
    that is written down: asked for once more after a stop, it might be later.
    """
    header, known = store.space, folder_ids(store)
    renewed = _renewed(store, now)
    wanted = Space.of(config.engine_settings, now.topics["model_state"].partitions)
    adopts = header is not None and store.is_replay and not header.app
    is_new = header is None or adopts or "model_state" in renewed
    reset: set[str] = set()
    if header is not None:
        header.check(wanted, f"the topic {config.topics.model_state}")
        found = list(differences(config.app.name, config.topics, header, known, now))
        refuse(found, accepted)
        if store.progress():
            check_nameless(config, header, admin)
        reset = {one.role for one in found if one.accepted_by == LOSS}
    if told := publishers.of_another(config, admin, header, now):
        raise Refused(told)
    if accepted.repair:
        repair.ask(store)
    before = header.unused | header.topics if header is not None and not is_new else {}
    old = {role: layout for role, layout in before.items() if role in now.topics}
    layouts = {
        role: Layout(there.id or old[role].id, there.partitions) if role in old else there
        for role, there in now.topics.items()
    }
    for role in "model_state", "item_vectors", USERS:
        if role in old and old[role].id == layouts[role].id:
            # Keys stay where they are, however many partitions there are by now.
            layouts[role] = Layout(layouts[role].id, old[role].partitions)
    for role in VECTORS:
        if role in old and (was := old[role].id):
            # Until all vectors are published again (`repaired`) each start has to say so.
            layouts[role] = Layout(was, layouts[role].partitions)
    partitions = wanted.partitions if header is None or is_new else header.partitions
    layouts["model_state"] = Layout(layouts["model_state"].id, partitions)
    space = msgspec.structs.replace(
        wanted, partitions=partitions, app=config.app.name, topics=layouts,
        former=header.former if header is not None else [],
        unused={role: layout for role, layout in before.items() if role not in now.topics},
        cluster=now.cluster or (header.cluster if header is not None else ""),
        since=header.since if header is not None else 0,
        format=max(wanted.format, header.format if header is not None else 0),
    )  # fmt: skip
    changes = _progress(config, store, first) | _reset(config, store, admin, reset)
    if adopts:  # nobody else may begin before all is there
        store.set_meta({stores.HOLDS_ALL: b"\x01"})
        begun = msgspec.structs.replace(store.marks, needs_folder=True)
        changes |= {records.MARKS: msgspec.msgpack.encode(begun)}
    if space != header or is_new or changes:
        if store.progress():
            readback.last = max(readback.last or 0, *(p.commit for p in store.progress().values()))
        claiming.claim(
            config, space, changes, readback, transactions,
            lambda: claiming.check_first(config, admin, read, readback.beat), member,
        )  # fmt: skip
        store.set_meta({records.SPACE: msgspec.msgpack.encode(space)})
    _renew_folder(store, now)
    return space


def lacks_vectors(space: Space, now: Identity) -> bool:
    """Whether a topic of vectors is another one than that which has all of them."""
    known = {role: space.topics[role].id for role in VECTORS if role in space.topics}
    return any(was and now.ids.get(role, was) != was for role, was in known.items())


def repaired(
    config: Config, store: Store, now: Identity, readback: Readback, transactions: Transactions,
    also: Iterable[tuple[int, bytes, bytes | None]], misplaced: Iterable[tuple[int, bytes]],
) -> None:  # fmt: skip
    """Write the header that knows the topics of vectors as they are, which have all of them now;
    and what else was to be repaired, as in `claiming.claim`.

    It is written also where nothing differs: something that is no header may lie over the last one.
    """
    space = store.space
    assert space is not None, "a worker has a header since it settled"
    known = {role: was for role, was in space.topics.items() if role in VECTORS}
    layouts = {role: Layout(now.topics[role].id or was.id, was.partitions)
               for role, was in known.items()}  # fmt: skip
    space = msgspec.structs.replace(space, topics=space.topics | layouts)
    claiming.claim(config, space, {}, readback, transactions, also=also, misplaced=misplaced)
    store.set_meta({records.SPACE: msgspec.msgpack.encode(space)})


def check_nameless(config: Config, header: Space, admin: AdminClient) -> None:
    """Refused if the model names no app, as of an older version, and may be another one's.

    The group of the app that made it has offsets, until they expire.
    """
    if header.app:
        return
    name, clicks = config.app.name, config.topics.clicks
    asked = admin.list_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(name)], request_timeout=clients.CALL_SECONDS
    )
    try:
        found = asked[name].result().topic_partitions or []
    except KafkaException as error:
        raise failure(error.args[0], "offsets of the group") from None
    if not any(tp.topic == clicks and tp.offset >= 0 for tp in found):
        raise Refused(
            f"{config.topics.model_state} has a model of an older version, which does not say "
            f"whose it is, and group {name} never read {clicks}, or long ago. Look that app.name "
            "is the name under which it was made, and that no other worker runs on it. If so, "
            f"`walkstream hand-over --from {name}` writes that down, and the worker goes on"
        )


def against_model(config: Config, admin: AdminClient) -> tuple[list[str], list[str]]:
    """How the topics differ from what `model-state` says: what harms nothing, and what does."""
    where = [(config.topics.model_state, 0)]
    with closing(clients.tail_consumer(config)) as consumer:
        found = reserved(consumer, clients.begins(admin, where), clients.ends(admin, where))
    value, now = found.get(records.SPACE), identity(admin, config)
    header = None if value is None else msgspec.msgpack.decode(value, type=Space)
    told = publishers.of_another(config, admin, header, now)
    all_of = (
        [] if header is None else list(differences(config.app.name, config.topics, header, {}, now))
    )
    return (
        [one.text for one in all_of if one.is_harmless],
        [one.text for one in all_of if not one.is_harmless] + ([told] if told else []),
    )


def refuse(what: Iterable[Difference], accepted: Accepted) -> None:
    """Say what differs. Refused if some of it was not accepted."""
    found = list(what)
    if refused := [one.text for one in found if not accepted.includes(one.accepted_by)]:
        raise Refused("\n  ".join(["the model does not fit what is here:", *refused]))
    for one in found:
        log.warning("%s", one.text)


def folder_ids(store: Store) -> dict[str, str]:
    """The ids that the folder was made with."""
    before = store.meta(stores.IDENTITY)
    return msgspec.msgpack.decode(before, type=dict[str, str]) if before else {}


def _renewed(store: Store, now: Identity) -> set[str]:
    """Roles of the topics that are others than those the folder was made with."""
    known = folder_ids(store)
    return {
        role
        for role in (*ROLES, USERS)
        if role in known and now.ids.get(role, known[role]) != known[role]
    }


def void(config: Config, store: Store, now: Identity) -> set[str]:
    """Topics of which the folder holds offsets that mean nothing any more."""
    return {str(getattr(config.topics, role)) for role in _renewed(store, now)}


def _progress(
    config: Config, store: Store, first: Callable[[], Mapping[Partition, int]]
) -> dict[bytes, Progress | None]:
    """What to write of the progress though it has not changed: where it begins, or of another app.

    The offsets of the group go with it. Those that it has may be of a time before the model was
    handed over, and a later look at them would take them for those of this model.
    """
    progress: Mapping[Partition, Progress] = store.progress()
    if not progress:
        progress = {where: Progress(offset, graph.NEVER, 0, 0) for where, offset in first().items()}
    elif not commits.is_of_another(commits.newest_of(store), config.app.name):
        return {}
    return {records.progress_key(*where): one for where, one in progress.items()}


def renew(store: Store, now: Identity) -> None:
    """Let a folder know the topics as they are now, where another worker has noticed that already.

    Of `transitions` that was made anew its own offset means nothing any more.
    """
    own = checkpoint.swept(store, stores.POINTER)
    if own is not None and "transitions" in _renewed(store, now):
        store.set_meta({stores.POINTER: msgspec.msgpack.encode(_from_begin(own))})
    _renew_folder(store, now)


def _from_begin(swept: records.Swept) -> records.Swept:
    return msgspec.structs.replace(swept, offset=0)


def _renew_folder(store: Store, now: Identity) -> None:
    if now.ids:
        # What is not used now may have been made anew when it is used again.
        store.set_meta({stores.IDENTITY: msgspec.msgpack.encode(folder_ids(store) | now.ids)})


def _reset(
    config: Config, store: Store, admin: AdminClient, roles: set[str]
) -> dict[bytes, Progress | bytes | None]:
    """What has to change of the progress, as the topics it is of were made anew; None deletes."""
    progress, clicks = store.progress(), config.topics.clicks
    out: dict[bytes, Progress | bytes | None] = {}
    if "clicks" in roles and progress:
        described = admin.list_topics(clicks, clients.CALL_SECONDS).topics[clicks]
        there = [(clicks, partition) for partition in described.partitions]
        begins = clients.begins(admin, there)
        time = max(p.time for p in progress.values())
        rounds = max(p.round for p in progress.values())
        out |= {records.progress_key(*partition): None for partition in progress}
        for partition, begin in begins.items():
            out[records.progress_key(*partition)] = Progress(begin, time, 0, rounds)
    if "items" in roles:
        out |= {records.items_key(*partition): None for partition in store.items_taken()}
    if "transitions" in roles:
        # Its offsets mean nothing any more: the new one is read from its beginning.
        swept = {key: at for key, at in checkpoint.all_swept(store).items() if at.offset}
        begun = {key: msgspec.msgpack.encode(_from_begin(at)) for key, at in swept.items()}
        if (own := begun.pop(stores.POINTER, None)) is not None:
            store.set_meta({stores.POINTER: own})
        out |= begun
    return out
