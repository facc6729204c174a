"""Whether a state folder is that of the model in `model-state`."""

from contextlib import closing

import msgspec
from confluent_kafka.admin import AdminClient

from streamer.errors import Refused
from streamer.kafka import clients
from streamer.kafka.identity import Identity
from streamer.kafka.waiting import between
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.model_state import is_of_worker
from streamer.state.records import Progress
from streamer.state.store import Store
from streamer.worker import header
from streamer.worker.header import Accepted


def check(
    config: Config, store: Store, now: Identity, accepted: Accepted, admin: AdminClient
) -> None:
    """Refused if the folder's model cannot be that of `model-state`: then none of it is read.

    A topic that was made anew may get the model of the folder by a repair, if the folder is this
    app's and the topic has no model of its own yet.
    """
    known, space = header.folder_ids(store), store.space
    if space is None:
        return
    blank = msgspec.structs.replace(space, app="", cluster="", topics={})
    found = [
        one
        for one in header.differences(config.app.name, config.topics, blank, known, now)
        if one.role in ("cluster", "model_state")
    ]
    topic, name = config.topics.model_state, config.app.name
    read = {topic for topic, _ in store.tail_offsets()}
    is_nameless = "model_state" not in known or "model_state" not in now.ids
    is_renewed = any(one.role == "model_state" for one in found)
    if (is_nameless and read and topic not in read) or (is_renewed and space.app not in ("", name)):
        raise Refused(
            f"{store.path} is the state folder of another model, of app {space.app!r}, and not of "
            f"{topic} of app {name!r}: nothing of it may be written there. Give each app a "
            "folder of its own: point state.dir to that of this one, or to a new one, to which "
            f"everything comes from {topic}"
        )
    if is_renewed and _has_model(config, admin):
        raise Refused(
            f"{store.path} is the state folder of a model that {topic} had before it was deleted "
            "and created again, or section [topics] names another topic. The one that is there has "
            "a model already, over which a repair would write the old one. To go on with what "
            "Kafka has, delete the folder (`walkstream reset`) and start again"
        )
    header.refuse(found, accepted)


def _has_model(config: Config, admin: AdminClient) -> bool:
    """Whether something that was learned is in `model-state`, and not only a header."""
    with closing(clients.tail_consumer(config)) as consumer:
        topic = config.topics.model_state
        where = [(topic, p) for p in clients.partitions(consumer, topic)]
        for message in between(consumer, clients.begins(admin, where), clients.ends(admin, where)):
            key, value = message.key() or b"", message.value()
            if value is None or not is_of_worker(message):
                continue
            if records.is_row(key):
                return True
            if key.startswith(records.PROGRESS):
                progress = msgspec.msgpack.decode(value, type=Progress)
                if records.has_learned({(topic, 0): progress}):
                    return True
    return False
