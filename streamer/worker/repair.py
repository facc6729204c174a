"""`walkstream worker --repair`: everything is published once more, as the state folder has it.

It mends a torn commit, and `item-vectors` or `model-state` that were made anew. Until it is done a
mark in the folder stays, so that a restart does it again.
"""

import logging
from collections.abc import Callable
from contextlib import closing

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


def overwritten(
    store: Store, tail: Tail, engine: Engine, swept: Swept | None
) -> list[tuple[int, bytes, bytes | None]]:
    """What is to be written over records that no worker wrote, of reserved keys: partition, key,
    and what the folder has, or None. `swept` is where the last sweep of the topic began."""
    space = store.space
    out: list[tuple[int, bytes, bytes | None]] = []
    assert space is not None, "a worker has a header since it settled"
    for partition, key in sorted({(m.partition() or 0, m.key() or b"") for m in tail.overwritten}):
        if records.is_malformed(key) or partition != records.place(key, space.partitions):
            out.append((partition, key, None))
        elif records.is_row(key):  # those that the model has are all written again
            if engine.vocabulary.get(decode(key)) is None:
                out.append((partition, key, None))
        elif key.startswith((records.GRAPH, records.SESSIONS)):
            if not _is_swept(key, engine, swept):
                out.append((partition, key, None))
        elif key not in (records.MANIFEST, records.SPACE):  # every commit of this kind has them
            out.append((partition, key, store.meta(key)))
    return out


def _is_swept(key: bytes, engine: Engine, swept: Swept | None) -> bool:
    """Whether the sweep of the topic has written this record of the graph's anew."""
    if key.startswith(records.GRAPH):
        slot = engine.vocabulary.get(decode(key.removeprefix(records.GRAPH)))
        return slot is not None and bool(engine.graph.last_seen[slot] != NEVER)
    turn, _, number = key.removeprefix(records.SESSIONS).partition(b"/")
    return swept is not None and int(turn) == swept.turn and int(number) < swept.parts


def misplaced(
    config: Config, store: Store, admin: AdminClient, beat: Callable[[], None]
) -> list[tuple[int, bytes]]:
    """Vectors that no worker wrote, as they lie in partitions of `item-vectors` that are not those
    of their keys: readers take whichever they see last."""
    topic, space = config.topics.item_vectors, store.space
    assert space is not None, "a worker has a header since it settled"
    with closing(clients.tail_consumer(config)) as consumer:
        where = [(topic, p) for p in clients.partitions(consumer, topic)]
        begins, ends = clients.begins(admin, where), clients.ends(admin, where)
        there = row_keys(consumer, begins, ends, beat)
    out = []
    for (_, partition), keys in there.items():
        ordered = sorted(keys)
        places = hash_keys(ordered, space.topics["item_vectors"].partitions)[0].tolist()
        out += [(partition, k) for k, p in zip(ordered, places, strict=True) if p != partition]
    return out


def finish(config: Config, store: Store, tail: Tail, commit: int) -> None:
    """All is published again, and the repair is over."""
    if tail.forgotten:
        forget.write(config, tail.forgotten)
    tail.overwritten.clear()
    tail.repairs = False
    store.write_entries({"meta": [(stores.REPAIR, None)]})
    log.info("repaired: all rows and vectors were published again by commit %d", commit)
