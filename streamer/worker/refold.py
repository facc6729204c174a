"""Evidence is folded again: how graph and sessions get to where the last commit left them.

Each record of `transitions` names its commit and the one before it that has evidence. So nothing
can be missing without notice, and evidence of a commit that was torn, which no later one comes
after, is left out.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from streamer.state import evidence, folded_by
from streamer.state import store as stores
from streamer.state import traces as traced
from streamer.state.commits import mark_of, no_commits
from streamer.state.store import Store
from streamer.state.traces import Traces
from streamer.worker import checkpoint

log = logging.getLogger(__name__)

_T = TypeVar("_T")

ALL = checkpoint.ALL
BACKWARDS = 200
"""Records that are read first where the newest are looked for from the end back."""


class Refolded(NamedTuple):
    """What came of it."""

    last: int
    """The number of the newest evidence in `transitions` that counts."""
    again: "list[Commit]"
    """Evidence of a torn commit, which only the folder has: it leaves with the next one, under its
    own number, as rows that are folded as of that one have it."""
    at: int = 0
    """The offset behind it."""
    gone: Mapping[str, int] = {}
    """The items that left by evidence that no commit of the owner of item partition 0 knew, and its
    numbers."""


def restore(
    config: Config, store: Store, engine: Engine, admin: AdminClient, accept_loss: bool,
    beat: Callable[[float], None], is_alone: bool = True,
) -> Refolded:  # fmt: skip
    """Give an empty engine the graph and the sessions of the last commit. Refused if evidence is
    gone, or if Kafka never had what a lost folder had. Where others commit meanwhile, the newest
    evidence is of no torn commit."""
    topic = config.topics.transitions
    mine = store.marks
    # What is folded again was counted by the settings of its time.
    engine.catalogue.count_by(folded_by.counted_by(mine))
    at = checkpoint.load(store, engine)
    lacks_counts = at is not None and at.counted is None and engine.catalogue.admission.is_on
    if mine.needs_folder and store.meta(stores.HOLDS_ALL) is None:
        raise Refused(
            f"{store.path}: the state folder is gone, and Kafka did not have all of it yet: the "
            "model was made by `walkstream replay`, or was being repaired. Put the folder back; or "
            "run `walkstream reset --topics`, and all is learned anew from the clicks"
        )
    begin, done = (0, 0) if at is None else (at.offset, at.commit)
    last, gone = done, dict[str, int]()
    own = {one.commit: one.records for one in _folders(store)}
    where = (topic, 0)
    first, end = clients.begins(admin, [where])[where], clients.ends(admin, [where])[where]
    is_short = first > begin and end > first
    found, behind = _read(config, store, min(max(begin, first), end), end, beat), [end]
    if not is_alone:
        found = _to_the_end_of_it(config, store, admin, found, behind, beat)
    for one in whole(found, mine.evidence if is_alone else ALL, done):
        if one.commit <= done:
            continue
        # Of what others wrote too, only its place says what came before it.
        lacks = one.before > last or (is_short and not one.is_decided)
        is_short = False
        if lacks and not accept_loss:
            raise _gone(topic, last, one.commit)
        has_clicks = any(len(told.clicks) for told in one.rounds)
        if lacks_counts and has_clicks and not accept_loss:
            raise Refused(
                f"{topic}: clicks are to be folded again that ids were counted by, and where the "
                "graph was written last before them it has no counts, as admission was off. Put "
                "the state folder back; or start a worker that is alone with --accept-loss, and "
                "what is in the graph counts as admitted"
            )
        if lacks:
            log.warning(
                "%s: the evidence between commits %d and %d is lost", topic, last, one.commit
            )
        if one.records < own.get(one.commit, 0):
            break  # of a torn commit: the folder has all of it
        _fold(engine, one)
        last = one.commit
        if last > mine.evidence:
            gone |= {name: last for happened in one.rounds for name in happened.gone}
    if last >= mine.evidence:
        return Refolded(last, [], behind[0], gone)
    return _of_folder(store, engine, topic, last, mine.evidence, accept_loss)._replace(at=end)


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
    return list(whole(map(evidence.unpack, packed), ALL))


class Commit(NamedTuple):
    """What records of `transitions` say of one commit."""

    commit: int
    before: int
    rounds: list[Evidence]
    records: int
    is_decided: bool = True


def whole(found: Iterable[evidence.Record], until: int, last: int = 0) -> Iterator[Commit]:
    """The commits whose evidence counts, of all records that were found behind number `last`.

    One counts once another comes after it, or if it is the newest of all, `until`. Further records
    of a commit name itself as the one before; what comes with its number once more, and names an
    older one, stands for a torn one that had the number first. Where several write, each record
    counts.
    """
    held: Commit | None = None
    for record in found:
        commit, before, rounds = record.after(last)
        last = max(last, commit)
        if held is not None and commit == held.commit == before:
            held = held._replace(rounds=held.rounds + rounds, records=held.records + 1)
            continue
        if held is not None and before >= held.commit:
            yield held
        held = Commit(commit, before, rounds, 1, record.is_decided)
    if held is not None and (held.commit <= until or not held.is_decided):
        yield held


def traces(
    config: Config, store: Store, admin: AdminClient, found: Refolded,
    beat: Callable[[float], None],
) -> Traces:  # fmt: skip
    """The copies of evidence in the folder, with what it lacks, from Kafka, of what was found."""
    room, wanted, end = config.session.visits, found.last, found.at
    number = wanted
    kept = Traces(store, room)
    if kept.last >= wanted:
        return kept
    where = (config.topics.transitions, 0)
    first = clients.begins(admin, [where])[where]
    lacking: list[tuple[int, bytes]] = []
    """The newest first."""
    clicks, size = 0, BACKWARDS
    while end > first and clicks < room:
        begin, size = max(first, end - size), 2 * size
        for message in reversed(list(_records(config, store, begin, end, beat))):
            told = _read_by(evidence.heading, message)
            if told.commit > wanted:
                continue  # it is of a torn commit
            number = number if told.commit == evidence.UNDECIDED else told.commit
            if number <= kept.last:
                break
            lacking.append((number, message.value() or b""))
            clicks += told.clicks
            number = number - 1 if told.commit == evidence.UNDECIDED else told.before
        end = begin if number > kept.last else first
    entries = kept.entries(reversed(lacking))
    store.write_entries({traced.FAMILY: entries})
    return kept


def _read(
    config: Config, store: Store, begin: int, end: int, beat: Callable[[float], None]
) -> Iterator[evidence.Record]:
    """All records between these offsets."""
    for message in _records(config, store, begin, end, beat):
        yield _read_by(evidence.unpack, message)


def _to_the_end_of_it(
    config: Config, store: Store, admin: AdminClient, found: Iterable[evidence.Record],
    behind: list[int], beat: Callable[[float], None],
) -> Iterator[evidence.Record]:  # fmt: skip
    """These records, and the rest of the commit that the last of them is of: it may stand behind
    where the log ended in the middle of its transaction. `behind` has where they end."""
    last = None
    for last in found:
        yield last
    if last is None or not last.is_decided:
        return
    where = (config.topics.transitions, 0)
    end = clients.ends(admin, [where])[where]
    for message in _records(config, store, behind[0], end, beat):
        record = _read_by(evidence.unpack, message)
        if record.commit != last.commit:
            break
        behind[0] = (message.offset() or 0) + 1
        yield record


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
            mark = mark_of(message)
            if value is None or mark is None or mark.app not in ours:
                strange += 1
                if strange == 1:
                    log.warning("%s", no_commits(message))
                continue
            yield message
