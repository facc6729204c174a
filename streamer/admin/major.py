"""A major update when somebody asks for it: `walkstream major`.

What is asked for is a record in `model-state`: the epoch of the placement that is to be followed by
another. So it is done once, whoever leads and however often workers start until then: with the next
epoch nothing is asked for any more.
"""

import time
from collections.abc import Mapping
from contextlib import closing

import msgspec

from streamer.errors import Refused, WalkstreamError
from streamer.kafka import clients, rights
from streamer.kafka.clients import CALL_SECONDS
from streamer.kafka.members import members
from streamer.settings.sections import Config
from streamer.state import packing, records
from streamer.state.model_state import put, reserved
from streamer.state.records import Marks, Space
from streamer.terminal import say

LOOK_SECONDS = 0.5
"""How often is looked whether it is over."""


def run(config: Config, wait: bool) -> None:
    """Ask for one, and return at once or when it is over. Refused if the model is another app's;
    WalkstreamError if there is none, Kafka did not take it, or no worker is there to wait for."""
    topic = config.topics.model_state
    where = [(topic, 0)]
    with (
        rights.allowed(config, "major") as admin,
        closing(clients.tail_consumer(config)) as consumer,
    ):
        there = topic in admin.list_topics(timeout=CALL_SECONDS).topics
        ends = clients.ends(admin, where) if there else {}
        begins = clients.begins(admin, where) if there else {}
        found = reserved(consumer, begins, ends, skips_strange=True)
        header = found.get(records.SPACE)
        if header is None:
            raise WalkstreamError(f"{topic} has no model: start a worker first")
        app = msgspec.msgpack.decode(header, type=Space).app
        if app not in ("", config.app.name):
            raise Refused(f"{topic} is the model of app {app!r}, not of {config.app.name!r}")
        epoch = _epoch(found)
        put(config, [(0, records.MAJOR, msgspec.msgpack.encode(epoch))])
        say(_told(epoch, found))
        nobody = (
            f"no worker runs in group {config.app.name}. What was asked for stays so: start one, "
            "and it begins with it"
        )
        if not wait:
            if not members(admin, config):
                say(nobody)
            return
        while _epoch(found) <= epoch:
            if not members(admin, config):
                raise WalkstreamError(nobody)
            time.sleep(LOOK_SECONDS)
            begins, ends = ends, clients.ends(admin, where)
            found = reserved(consumer, begins, ends, skips_strange=True)
        print(
            f"the clusters are those of epoch {_epoch(found)}: every item leaves with the next "
            "commits"
        )


def _epoch(found: Mapping[bytes, bytes]) -> int:
    """That of the placement among these records, 0 if there is none."""
    return packing.unpack_placement(found.get(records.PLACEMENT), 1).epoch


def _told(epoch: int, found: Mapping[bytes, bytes]) -> str:
    marks = found.get(records.MARKS)
    if epoch == 0:
        return (
            "there are no clusters yet: the first are made as soon as clusters.min_items items are "
            "settled"
        )
    if marks is not None and msgspec.msgpack.decode(marks, type=Marks).major is not None:
        return "a major update is under way, and this is the one"
    return f"asked for a major update after epoch {epoch}: workers begin it with their next round"
