"""Who is in the consumer group of an app."""

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, MemberDescription

from streamer.kafka import clients
from streamer.kafka.clients import CALL_SECONDS, SETTLING, identity
from streamer.kafka.failures import failure
from streamer.settings.sections import Config

ANSWER_SECONDS = 4.0
"""How long a client may take to say who is in a group, before a fresh one is asked."""
PASSING = SETTLING | {KafkaError._TIMED_OUT, KafkaError._TRANSPORT}
"""Answers that may be others a moment later."""


def members(client: AdminClient, config: Config) -> list[MemberDescription]:
    """Who is in the group, a worker that died less than a session time-out ago included."""
    return list(described(client, config).members)


def described(client: AdminClient, config: Config) -> ConsumerGroupDescription:
    """The group as its coordinator knows it; one that never was has no members."""
    name, deadline = config.app.name, time.monotonic() + CALL_SECONDS
    while True:
        asked = client.describe_consumer_groups([name], request_timeout=ANSWER_SECONDS)
        try:
            return asked[name].result()
        except KafkaException as error:
            code = error.args[0].code()
            if code not in PASSING or time.monotonic() > deadline:
                raise failure(error.args[0], "describe group") from None
            if code == KafkaError._TIMED_OUT:
                # It may wait for a broker that is no more, and go on with that.
                client = AdminClient(clients.COMMON | clients.STEADY | config.kafka)
            time.sleep(0.2)


def other_members(client: AdminClient, config: Config) -> list[str]:
    """The members of the group that have another name than this worker."""
    me = identity(config)
    return [
        f"{m.group_instance_id or m.member_id} (client id {m.client_id}, host {m.host})"
        for m in members(client, config)
        if m.group_instance_id != me
    ]
