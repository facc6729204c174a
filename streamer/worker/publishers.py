"""Who else publishes into `item-vectors`: a reader of it would get two models in turns.

A model knows the topics that it was written to. Into one that it does not know yet it publishes
only if no other app does: who was there first keeps it.
"""

from contextlib import closing

from confluent_kafka.admin import AdminClient

from streamer.kafka import clients
from streamer.kafka.clients import label, partition_of
from streamer.kafka.identity import Identity
from streamer.kafka.newest import newest
from streamer.settings.sections import Config
from streamer.state.commits import mark_of
from streamer.state.records import Space

SAMPLE = 2000
"""How many of the newest vectors are looked at."""


def of_another(config: Config, admin: AdminClient, header: Space | None, now: Identity) -> str:
    """What to tell where another app publishes into a topic that is new to this model, or nothing.

    `header` is that of the model, if there is one. What lies in a topic that it knows may be of a
    name that the app had before it was handed over, as of an older version, which kept none.
    """
    known = header.topics.get("item_vectors") if header is not None else None
    if known is not None and known.id == now.topics["item_vectors"].id:
        return ""
    if header is not None and header.app and known is None:
        return ""
    ours = config.app.name, *(header.former if header is not None else ())
    topic = config.topics.item_vectors
    where = [(topic, partition) for partition in range(now.topics["item_vectors"].partitions)]
    with closing(clients.tail_consumer(config)) as consumer:
        begins, ends = clients.begins(admin, where), clients.ends(admin, where)
        for message in newest(consumer, begins, ends, SAMPLE):
            mark = mark_of(message)
            if mark is not None and mark.app not in ours:
                return (
                    f"{label(partition_of(message))} has a record by app {mark.app!r} at offset "
                    f"{message.offset()}: two apps that publish into one topic give its readers "
                    f"both models in turns. Name a topic of its own for app {config.app.name!r} "
                    "(topics.item_vectors), or, if the other one is no more, delete this topic "
                    "and run `walkstream topics create`"
                )
    return ""
