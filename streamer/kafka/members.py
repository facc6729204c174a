"""Who is in the consumer group of an app."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streamer.kafka.clients import CALL_SECONDS, failure, identity
from streamer.settings.sections import Config

_SETTLING = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
"""What brokers say of groups for a moment after they started, or after another took over."""


def other_members(client: AdminClient, config: Config) -> list[str]:
    """Who else is in the group, a worker that died less than a session time-out ago included."""
    name, deadline = config.app.name, time.monotonic() + CALL_SECONDS
    while True:
        asked = client.describe_consumer_groups([name], request_timeout=CALL_SECONDS)
        try:
            members = asked[name].result().members
            break
        except KafkaException as error:
            if error.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                raise failure(error.args[0], "describe group") from None
            time.sleep(0.2)
    me = identity(config)
    return [
        f"{m.group_instance_id or m.member_id} (client id {m.client_id}, host {m.host})"
        for m in members
        if m.group_instance_id != me
    ]
