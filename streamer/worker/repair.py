"""`walkstream worker --repair`: everything is published once more, as the state folder has it.

It mends a torn commit, and `item-vectors`, `user-vectors` or `model-state` that were made anew:
items, and where vectors of users are published, users. What Kafka has of a user and the folder has
not stays as it is: nothing tells whether its commit was torn. Until it is done a
mark in the folder stays, so that a restart does it again.
"""

import logging
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from core.engine import Engine
from core.graph.graph import NEVER
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode
from core.rounds import Gone
from streamer.admin import forget
from streamer.kafka import clients
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state import store as stores
from streamer.state.model_state import row_keys
from streamer.state.records import Swept
from streamer.state.store import Store
from streamer.worker.strangers import Strangers
from streamer.worker.tail import Tail

log = logging.getLogger(__name__)


def is_asked(store: Store, asked: bool) -> bool:
    """Whether to repair: asked for now, or at an earlier start that did not come so far."""
    return asked or store.meta(stores.REPAIR) is not None


def ask(store: Store) -> None:
    """Let each start repair until one is done. Only where the model is known to be this app's."""
    store.set_meta({stores.REPAIR: b"\x01"})


class Astray(NamedTuple):
    """What Kafka has and is not to have."""

    dead: list[Gone]
    """What the model has not, as its deletion was lost."""
    misplaced: list[tuple[int, bytes]]
    """Vectors in partitions of `item-vectors` that are not those of their keys, so that no worker
    wrote them: readers take whichever they see last."""


def astray(
    config: Config, store: Store, admin: AdminClient, newest: int, beat: Callable[[], None]
) -> Astray:
    """What has to leave. `newest` is the greatest version in use."""
    space = store.space
    assert space is not None, "a worker has a header since it settled"
    state, vectors = config.topics.model_state, config.topics.item_vectors
    with closing(clients.tail_consumer(config)) as consumer:
        where = [(t, p) for t in (state, vectors) for p in clients.partitions(consumer, t)]
        begins, ends = clients.begins(admin, where), clients.ends(admin, where)
        there = row_keys(consumer, begins, ends, beat)
    dead = {where: {key for key in keys if store.row(key) is None} for where, keys in there.items()}
    # A row is deleted where it lies: what no worker wrote may lie anywhere.
    rows = [(key, p) for (topic, p), keys in dead.items() if topic == state for key in keys]
    others = sorted(set().union(*dead.values()) - {key for key, _ in rows})
    places = hash_keys(others, space.partitions)[0].tolist()
    gone = [
        # A torn commit has used the next version already.
        Gone(key, partition, newest + 2, records.is_item(key))
        for key, partition in sorted([*rows, *zip(others, places, strict=True)])
    ]
    misplaced = []
    for (topic, partition), keys in there.items():
        ordered = sorted(keys) if topic == vectors else []
        places = hash_keys(ordered, space.topics["item_vectors"].partitions)[0].tolist()
        pairs = zip(ordered, places, strict=True)
        misplaced += [(partition, key) for key, place in pairs if place != partition]
    return Astray(gone, misplaced)


def overwritten(
    store: Store, strangers: Strangers, engine: Engine, swept: Swept | None, instance: str
) -> list[tuple[int, bytes, bytes | None]]:
    """What is to be written over records that no worker wrote, of reserved keys: partition, key,
    and what the folder has, or None. `swept` is where the last sweep of the topic began."""
    space = store.space
    out: list[tuple[int, bytes, bytes | None]] = []
    assert space is not None, "a worker has a header since it settled"
    for partition, key in sorted(strangers.overwritten):
        if records.is_malformed(key) or partition != records.place(key, space.partitions):
            out.append((partition, key, None))
        elif records.is_row(key):  # those that the model has are all written again
            if engine.vocabulary.get(decode(key)) is None:
                out.append((partition, key, None))
        elif key.startswith((records.GRAPH, records.SESSIONS)):
            if not _is_swept(key, engine, swept):
                out.append((partition, key, None))
        elif records.is_manifest(key) and key != records.manifest_key(instance):
            out.append((partition, key, None))
        elif key != records.SPACE and not records.is_manifest(key):  # this commit has them
            out.append((partition, key, store.meta(key)))
    return out


def _is_swept(key: bytes, engine: Engine, swept: Swept | None) -> bool:
    """Whether the sweep of the topic has written this record of the graph's anew."""
    if key.startswith(records.GRAPH):
        slot = engine.vocabulary.get(decode(key.removeprefix(records.GRAPH)))
        return slot is not None and bool(engine.graph.last_seen[slot] != NEVER)
    turn, _, number = key.removeprefix(records.SESSIONS).partition(b"/")
    return swept is not None and int(turn) == swept.turn and int(number) < swept.parts


def finish(config: Config, store: Store, tail: Tail, commit: int) -> None:
    """All is published again, and the repair is over."""
    if tail.forgotten:
        forget.write(config, tail.forgotten)
    tail.strangers.end_repair()
    store.write_entries({"meta": [(stores.REPAIR, None)]})
    users = " of items and users" if config.has_users else ""
    log.info("repaired: all rows and vectors%s were published again by commit %d", users, commit)
