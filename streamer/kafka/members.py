"""Who is in the consumer group of an app."""

import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, MemberDescription

from streamer.kafka.clients import CALL_SECONDS, SETTLING, failure, identity
from streamer.settings.sections import Config


def members(client: AdminClient, config: Config) -> list[MemberDescription]:
    """Who is in the group, a worker that died less than a session time-out ago included."""
    name, deadline = config.app.name, time.monotonic() + CALL_SECONDS
    while True:
        asked = client.describe_consumer_groups([name], request_timeout=CALL_SECONDS)
        try:
            return list(asked[name].result().members)
        except KafkaException as error:
            if error.args[0].code() not in SETTLING or time.monotonic() > deadline:
                raise failure(error.args[0], "describe group") from None
            time.sleep(0.2)


def other_members(client: AdminClient, config: Config) -> list[str]:
    """The members of the group that have another name than this worker."""
    me = identity(config)
    return [
        f"{m.group_instance_id or m.member_id} (client id {m.client_id}, host {m.host})"
        for m in members(client, config)
        if m.group_instance_id != me
    ]
