"""`walkstream worker --repair`: everything is published once more, as the state folder has it.

It mends a torn commit, and `item-vectors` or `model-state` that were made anew. Until it is done a
mark in the folder stays, so that a restart does it again.
"""

import logging
from collections.abc import Callable
from contextlib import closing

from confluent_kafka.admin import AdminClient

from core.ids.hashing import hash_keys
from core.rounds import Gone
from streamer.admin import forget
from streamer.kafka import clients
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state import store as stores
from streamer.state.model_state import row_keys
from streamer.state.store import Store
from streamer.worker.tail import Tail

log = logging.getLogger(__name__)


def is_asked(store: Store, asked: bool) -> bool:
    """Whether to repair: asked for now, or at an earlier start that did not come so far."""
    return asked or store.meta(stores.REPAIR) is not None


def ask(store: Store) -> None:
    """Let each start repair until one is done. Only where the model is known to be this app's."""
    store.set_meta({stores.REPAIR: b"\x01"})


def dead(
    config: Config, store: Store, admin: AdminClient, newest: int, partitions: int,
    beat: Callable[[], None],
) -> list[Gone]:  # fmt: skip
    """What Kafka has and the model has not, as its deletion was lost: it has to leave.

    `newest` is the greatest version in use.
    """
    topics = config.topics.model_state, config.topics.item_vectors
    with closing(clients.tail_consumer(config)) as consumer:
        where = [(topic, p) for topic in topics for p in clients.partitions(consumer, topic)]
        begins, ends = clients.begins(admin, where), clients.ends(admin, where)
        there = row_keys(consumer, begins, ends, beat)
    dead = {where: {key for key in keys if store.row(key) is None} for where, keys in there.items()}
    # A row is deleted where it lies: what no worker wrote may lie anywhere.
    state = config.topics.model_state
    rows = [(key, p) for (topic, p), keys in dead.items() if topic == state for key in keys]
    vectors = sorted(set().union(*dead.values()) - {key for key, _ in rows})
    places = hash_keys(vectors, partitions)[0].tolist() if vectors else []
    return [
        # A torn commit has used the next version already.
        Gone(key, partition, newest + 2, records.is_item(key))
        for key, partition in sorted([*rows, *zip(vectors, places, strict=True)])
    ]


def overwritten(store: Store, tail: Tail) -> list[tuple[int, bytes, bytes | None]]:
    """What is to be written over records that no worker wrote, of reserved keys: partition, key,
    and what the folder has, or None."""
    # The manifest and the header have their places in partition 0, and commits write them there.
    named = {(0, records.MANIFEST), (0, records.SPACE)}
    found = {(message.partition() or 0, message.key() or b"") for message in tail.overwritten}
    return [
        (partition, key, None if _leaves(key) else store.meta(key))
        for partition, key in sorted(found - named)
        if not records.is_row(key)
    ]


def finish(config: Config, store: Store, tail: Tail, commit: int) -> None:
    """All is published again, and the repair is over."""
    if tail.forgotten:
        forget.write(config, tail.forgotten)
    tail.overwritten.clear()
    store.write_entries({"meta": [(stores.REPAIR, None)]})
    log.info("repaired: all rows and vectors were published again by commit %d", commit)


def _leaves(key: bytes) -> bool:
    """Whether what lies over a reserved key is deleted, whatever the folder has under it."""
    return key == records.MANIFEST or records.is_malformed(key)
