"""Evidence is folded again: how graph and sessions get to where the last commit left them.

Each record of `transitions` names its commit and the one before it that has evidence. So nothing
can be missing without notice, and evidence of a commit that was torn, which no later one comes
after, is left out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import NamedTuple, TypeVar

import msgspec
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.rounds import Evidence
from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients
from streamer.kafka.clients import label, partition_of
from streamer.kafka.waiting import between
from streamer.settings.sections import Config
from streamer.state import evidence
from streamer.state import store as stores
from streamer.state import traces as traced
from streamer.state.records import commit_of, no_commits
from streamer.state.store import Store
from streamer.state.traces import Traces
from streamer.worker import checkpoint

log = logging.getLogger(__name__)

_T = TypeVar("_T")

BACKWARDS = 200
"""Records that are read first where the newest are looked for from the end back."""


class Refolded(NamedTuple):
    """What came of it."""

    last: int
    """The newest commit in `transitions` whose evidence counts."""
    again: "list[Commit]"
    """Evidence of a torn commit, which only the folder has: it leaves with the next one, under its
    own number, as rows that are folded as of that one have it."""


def restore(
    config: Config, store: Store, engine: Engine, admin: AdminClient, accept_loss: bool,
    beat: Callable[[float], None],
) -> Refolded:  # fmt: skip
    """Give an empty engine the graph and the sessions of the last commit. Refused if evidence is
    gone, or if Kafka never had what a lost folder had."""
    topic = config.topics.transitions
    mine = store.marks
    at = checkpoint.load(store, engine)
    if mine.needs_folder and store.meta(stores.HOLDS_ALL) is None:
        raise Refused(
            f"{store.path}: the state folder is gone, and Kafka did not have all of it yet: the "
            "model was made by `walkstream replay`, or was being repaired. Put the folder back; or "
            "run `walkstream reset --topics`, and all is learned anew from the clicks"
        )
    begin, done = (0, 0) if at is None else (at.offset, at.commit)
    if mine.evidence <= done:
        return Refolded(mine.evidence, [])
    last = done
    own = {one.commit: one.records for one in _folders(store)}
    for one in whole(_read(config, store, admin, begin, beat), mine.evidence):
        if one.commit <= done:
            continue
        if one.before > last and not accept_loss:
            raise _gone(topic, last, one.commit)
        if one.before > last:
            log.warning(
                "%s: the evidence between commits %d and %d is lost", topic, last, one.commit
            )
        if one.records < own.get(one.commit, 0):
            break  # of a torn commit: the folder has all of it
        _fold(engine, one)
        last = one.commit
    if last >= mine.evidence:
        return Refolded(mine.evidence, [])
    return _of_folder(store, engine, topic, last, mine.evidence, accept_loss)


def _fold(engine: Engine, one: "Commit") -> None:
    for happened in one.rounds:
        engine.fold_again(happened, one.commit)


def _gone(topic: str, after: int, until: int) -> Refused:
    return Refused(
        f"{topic}[0]: the evidence between commit {after} and commit {until} is gone, as retention "
        "took it or somebody deleted it: what clicks did to the graph then is not known. Start "
        "with --accept-loss to go on without it, and let the topic keep more "
        "(`walkstream topics check`)"
    )


def _of_folder(
    store: Store, engine: Engine, topic: str, last: int, wanted: int, accept_loss: bool
) -> Refolded:
    """The evidence of the newest commit, as the folder has it: that commit is torn."""
    found = [one for one in _folders(store) if last < one.commit <= wanted]
    if not found or found[-1].commit != wanted:
        if accept_loss:
            log.warning("%s: the evidence after commit %d is lost", topic, last)
            return Refolded(last, [])
        raise _gone(topic, last, wanted)
    if found[0].before > last and not accept_loss:
        raise _gone(topic, last, found[0].commit)
    for one in found:
        _fold(engine, one)
    return Refolded(last, found)


def _folders(store: Store) -> "list[Commit]":
    """The evidence that left with the newest commit that had some, as the folder has it."""
    value = store.meta(stores.EVIDENCE)
    packed = [] if value is None else msgspec.msgpack.decode(value, type=list[bytes])
    return list(whole(map(evidence.unpack, packed), checkpoint.ALL))


class Commit(NamedTuple):
    """What records of `transitions` say of one commit."""

    commit: int
    before: int
    rounds: list[Evidence]
    records: int


def whole(found: Iterable[evidence.Record], until: int) -> Iterator[Commit]:
    """The commits whose evidence counts, of all records that were found.

    One counts once another comes after it, or if it is the newest of all, `until`. Further records
    of a commit name itself as the one before; what comes with its number once more, and names an
    older one, stands for a torn one that had the number first.
    """
    held: Commit | None = None
    for commit, before, rounds in found:
        if held is not None and commit == held.commit == before:
            held = held._replace(rounds=held.rounds + rounds, records=held.records + 1)
            continue
        if held is not None and before >= held.commit:
            yield held
        held = Commit(commit, before, rounds, 1)
    if held is not None and held.commit <= until:
        yield held


def traces(
    config: Config, store: Store, admin: AdminClient, beat: Callable[[float], None]
) -> Traces:
    """The copies of evidence in the folder, with what it lacks of the newest, from Kafka."""
    room, wanted = config.session.visits, store.marks.evidence
    kept = Traces(store, room)
    if kept.last >= wanted:
        return kept
    where = (config.topics.transitions, 0)
    first, end = clients.begins(admin, [where])[where], clients.ends(admin, [where])[where]
    lacking: list[list[bytes]] = []
    clicks, size = 0, BACKWARDS
    while end > first and clicks < room:
        begin, size = max(first, end - size), 2 * size
        found = list(_records(config, store, begin, end, beat))
        told = [_read_by(evidence.heading, message) for message in found]
        new = [kept.last < commit <= wanted for commit, _ in told]
        lacking.append([m.value() or b"" for m, is_new in zip(found, new, strict=True) if is_new])
        clicks += sum(amount for _, amount in told)
        if not all(new) and told and told[0][0] <= kept.last:
            break
        end = begin
    entries = kept.entries(record for block in reversed(lacking) for record in block)
    store.write_entries({traced.FAMILY: entries})
    return kept


def _read(
    config: Config, store: Store, admin: AdminClient, begin: int, beat: Callable[[float], None]
) -> Iterator[evidence.Record]:
    """All records from this offset on."""
    where = (config.topics.transitions, 0)
    first, end = clients.begins(admin, [where])[where], clients.ends(admin, [where])[where]
    for message in _records(config, store, min(max(begin, first), end), end, beat):
        yield _read_by(evidence.unpack, message)


def _read_by(read: Callable[[bytes], _T], message: Message) -> _T:
    """What a record says. Refused where it cannot be read."""
    try:
        return read(message.value() or b"")
    except WalkstreamError as error:
        raise Refused(
            f"{label(partition_of(message))}: at offset {message.offset()}: {error}"
        ) from None


def _records(
    config: Config, store: Store, begin: int, end: int, beat: Callable[[float], None]
) -> Iterator[Message]:
    """The records of `transitions` between two offsets that are part of commits: what some other
    program wrote is told, and passed over."""
    where = (config.topics.transitions, 0)
    at, strange = [begin], 0
    former = () if store.space is None else store.space.former
    ours = {config.app.name, *former}

    def tell() -> None:
        beat((at[0] - begin) / max(1, end - begin))

    with closing(clients.tail_consumer(config)) as consumer:
        for message in between(consumer, {where: begin}, {where: end}, tell):
            at[0] = message.offset() or 0
            value = message.value()
            commit = commit_of(message)
            if value is None or commit is None or commit[0] not in ours:
                strange += 1
                if strange == 1:
                    log.warning("%s", no_commits(message))
                continue
            yield message
