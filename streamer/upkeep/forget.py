"""Users whose clicks do not count: `walkstream forget`.

The list is a set of records in `model-state`, under a hash of the user id, so that every worker has
it before it folds anything, and nobody can read the ids from it. A worker leaves the clicks of such
a user out from then on, also when it folds old clicks anew after the loss of its folder.
"""

import hashlib
from collections.abc import Collection, Iterable, Set

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from core.clicks import Clicks
from streamer import kafka, records
from streamer.config import spelled
from streamer.errors import WalkstreamError
from streamer.kafka import CALL_SECONDS
from streamer.settings import Config


def key(app: str, user: str) -> bytes:
    """The reserved key that says that a user of this app is forgotten."""
    digest = hashlib.blake2b(user.encode(), digest_size=16, key=app.encode()[:64]).hexdigest()
    return records.FORGOTTEN + digest.encode()


def among(app: str, users: Iterable[str], forgotten: Set[bytes]) -> list[str]:
    """Those of the users that are forgotten."""
    return [user for user in users if key(app, user) in forgotten]


def leave_out(clicks: Clicks, app: str, forgotten: Set[bytes]) -> Clicks:
    """The clicks without those of forgotten users."""
    if not forgotten:
        return clicks
    out = set(among(app, set(clicks.users), forgotten))
    if not out:
        return clicks
    kept = np.array([user not in out for user in clicks.users])
    at = np.flatnonzero(kept).tolist()
    return Clicks(
        [clicks.users[i] for i in at],
        [clicks.items[i] for i in at],
        clicks.times[kept],
        clicks.weights[kept],
        None if clicks.event_ids is None else clicks.event_ids[kept],
    )


def run(config: Config, users: Collection[str], undo: bool) -> None:
    """Put users on the list, or take them off it. WalkstreamError if Kafka did not take it."""
    kafka.admin(config)
    failed: list[KafkaError] = []

    def told(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    producer = Producer(kafka.COMMON | config.kafka | {"enable.idempotence": True})
    for user in users:
        producer.produce(
            config.topics.model_state, None if undo else b"\x01", key(config.app.name, user),
            partition=0, on_delivery=told,
        )  # fmt: skip
    left = producer.flush(CALL_SECONDS)
    if failed or left:
        why = failed[0].str() if failed else "no answer in time"
        raise WalkstreamError(
            f"{config.topics.model_state}: {len(failed) + left} of {len(users)} records were not "
            f"taken ({why}). Nothing is wrong with doing it again"
        )
    if undo:
        print(f"clicks of {len(users)} users count again, from now on")
        return
    print(
        f"clicks of {len(users)} users do not count from now on. What is left of them:\n"
        f"  their raw clicks in {config.topics.clicks}, and bad ones in "
        f"{config.topics.dead_letters}, until the retention of these topics\n"
        "  their share in the item graph and the vectors, which names no user and fades with "
        f"graph.half_life ({spelled(config.graph.half_life)}); the graph is without it at once if "
        "the worker is stopped, its folder deleted (walkstream reset), and started\n"
        "  a hash of each id in "
        f"{config.topics.model_state}, until `walkstream forget --undo`"
    )
