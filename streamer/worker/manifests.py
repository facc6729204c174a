"""What manifests say, and what partitions have of it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import Message

from streamer.kafka.clients import Partition, label, partition_of
from streamer.state import records
from streamer.state.commits import Manifest, Part

REPAIR = (
    "A transaction was settled in the middle, as an old request reached the brokers late. Nothing "
    "was learned from it since. Start once with `walkstream worker --repair`: it goes on from what "
    "the state folder has, and publishes all rows and vectors again"
)


class Doubt(NamedTuple):
    """Commits that are not whole."""

    instance: str
    """Of this worker: the first of them, and all later ones."""
    first: int
    what: str


def parts_of(manifest: Manifest) -> Iterable[tuple[Partition, Part]]:
    for topic, parts in manifest.topics.items():
        for number, part in enumerate(parts.partitions):
            yield (topic, number), part


def is_manifest(model_state: str, message: Message) -> bool:
    """Whether a record is the manifest of a commit, and not a deletion under such a key."""
    is_there = message.value() is not None and partition_of(message) == (model_state, 0)
    return is_there and records.is_manifest(message.key() or b"")


def add_letter(
    manifest: Manifest, found: Mapping[Partition, Part], partition: Partition, message: Message
) -> None:
    """A dead letter bears the number of a commit: it counts if it lies where that one's do.

    A copy that some tool made of a letter, with its headers, lies behind all that the commit wrote.
    """
    part = manifest.topics[partition[0]].partitions[partition[1]]
    if (message.offset() or 0) >= part.begin and found[partition].size < part.size:
        found[partition].add(message.key(), message.value())


def missing(
    manifest: Manifest, found: Mapping[Partition, Part], has_manifest: bool,
    checked: Iterable[Partition] | None = None, tombstones: bool = True,
    written_over: Mapping[Partition, int] | None = None,
) -> Iterable[str]:  # fmt: skip
    """What the partitions do not have of a commit, or have too much of; by default all of them.

    Compaction may have taken as many records of a partition as were `written_over` by others.
    """
    for partition, part in parts_of(manifest):
        if checked is not None and partition not in checked:
            continue
        got = found.get(partition, Part(0))
        for name, have, wanted in (
            ("records", (got.records, got.checksum), (part.records, part.checksum)),
            (
                "tombstones",
                (got.tombstones, got.tombstones_checksum),
                (part.tombstones, part.tombstones_checksum),
            ),
        ):
            if 0 < wanted[0] - have[0] <= (written_over or {}).get(partition, 0):
                continue
            if have != wanted and (tombstones or name == "records"):
                others = " that are others than were sent" if have[0] == wanted[0] else ""
                yield f"{label(partition)} has {have[0]} of its {wanted[0]} {name}{others}"
    if not has_manifest:
        yield "its manifest and progress are missing"


def foreign(partition: Partition, message: Message, app: str) -> str:
    return (
        f"{label(partition)} has a record by app {app!r} at offset {message.offset()}: two apps "
        "publish into one topic, and readers of it get both models in turns. Stop one of them, and "
        "give it topics of its own (section [topics]); then `walkstream worker --repair` publishes "
        "all that is the other's again"
    )
