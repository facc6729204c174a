"""Users whose clicks do not count: `walkstream forget`.

The list of them is a set of records in `model-state`, under a hash of the user id, so that every
worker has it before it folds anything, and nobody can read the ids from it. A worker leaves the
clicks of such a user out from then on. What counted before stays counted, also in a folder that is
made anew.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence, Set
from contextlib import closing
from pathlib import Path

import numpy as np
from confluent_kafka.admin import AdminClient
from numpy.typing import NDArray

from core.ids.vocabulary import encode
from streamer.errors import Refused
from streamer.kafka import clients, rights
from streamer.kafka.clients import CALL_SECONDS
from streamer.settings.load import spelled
from streamer.settings.sections import Config
from streamer.state import records
from streamer.state.model_state import put, reserved
from streamer.terminal import say
from streamer.wording import counted


def former(app: str) -> bytes:
    """The reserved key that says that users are on the list under a former name of the app."""
    return records.FORMER_APP + app.encode().hex().encode()


def names(app: str, forgotten: Iterable[bytes]) -> list[str]:
    """The names under which users are hashed in the list: that of the app, and its former ones."""
    prefix = records.FORMER_APP
    former = [one.removeprefix(prefix) for one in forgotten if one.startswith(prefix)]
    return [app, *(bytes.fromhex(name.decode()).decode() for name in sorted(former))]


def key(app: str, user: str) -> bytes:
    """The reserved key that says that a user of this app is forgotten."""
    digest = hashlib.blake2b(encode(user), digest_size=16, key=app.encode()[:64]).hexdigest()
    return records.FORGOTTEN + digest.encode()


def among(app: str, users: Iterable[str], forgotten: Set[bytes]) -> list[str]:
    """Those of the users whose clicks are left out."""
    apps = names(app, forgotten)
    return [user for user in users if any(key(name, user) in forgotten for name in apps)]


def kept(users: Sequence[str], app: str, forgotten: Set[bytes]) -> NDArray[np.bool_] | None:
    """Which of the users are not forgotten, bool [len(users)]; None if all are kept."""
    out = set(among(app, set(users), forgotten)) if forgotten else set()
    return np.array([user not in out for user in users]) if out else None


def run(config: Config, users: Collection[str], undo: bool) -> None:
    """Put users on the list, or take them off it. WalkstreamError if Kafka did not take it."""
    check_reset(Path(config.state.dir))
    apps = [config.app.name]
    with rights.allowed(config, "forget --undo" if undo else "forget") as admin:
        if undo:
            apps = names(config.app.name, listed(config, admin))
        write(config, [key(app, user) for app in apps for user in users], undo)
    if undo:
        print(f"clicks of {counted(len(users), 'user')} count again, from now on")
        return
    topics, half_life = config.topics, spelled(config.graph.half_life)
    say(
        f"clicks of {counted(len(users), 'user')} do not count from now on. What is left of them:\n"
        f"  a hash of each id, in {topics.model_state} and in state folders, until `walkstream "
        "forget --undo`\n"
        f"  their raw clicks in {topics.clicks}, what they did to the graph in "
        f"{topics.transitions}, and bad ones in {topics.dead_letters}, until the retention of "
        "these topics\n"
        f"  their open sessions in {topics.model_state} and in the state folder, until the sweep "
        "of each after the next wrote over them (of the folder twice checkpoint.seconds, "
        f"{config.checkpoint.seconds:g} s, while the worker runs); Kafka and RocksDB let go of "
        "them when they compact\n"
        f"  their vectors and history, where user_vectors.kind is set, in {topics.user_vectors} "
        "until a worker has looked through all users, which takes a minute for each 60,000, and "
        "Kafka compacts; where it was set once and is off by now, until it is set again, or the "
        "topic is deleted\n"
        "  their share in the item graph, which names no user and fades with graph.half_life "
        f"({half_life}), and in the vectors, which fades as other clicks are learned; both are "
        "without it if all is learned anew (walkstream reset --topics)"
    )


def listed(config: Config, admin: AdminClient) -> set[bytes]:
    """The list that `model-state` has."""
    return {key for key in reserved_of(config, admin) if key.startswith(records.FORGOTTEN)}


def reserved_of(config: Config, admin: AdminClient) -> dict[bytes, bytes]:
    """What partition 0 of `model-state` has under reserved keys, where there is such a topic: all
    of the list is there, and the header."""
    topic = config.topics.model_state
    if topic not in admin.list_topics(timeout=CALL_SECONDS).topics:
        return {}
    where = [(topic, 0)]
    with closing(clients.tail_consumer(config)) as consumer:
        begins, ends = clients.begins(admin, where), clients.ends(admin, where)
        return reserved(consumer, begins, ends, skips_strange=True)


def write(config: Config, keys: Collection[bytes], undo: bool = False) -> None:
    """Put these keys on the list in `model-state`, or take them off it."""
    put(config, [(0, key, None if undo else b"\x01") for key in keys])


# -- the list while `reset --topics` replaces model-state ----------------------------------------


def put_aside(state: Path, keys: Collection[bytes]) -> None:
    """Write the list to a file beside the state folder; returns when it is on the disk."""
    path = _aside(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.writelines(key.removeprefix(records.FORGOTTEN) + b"\n" for key in sorted(keys))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_aside(state: Path) -> set[bytes]:
    """The keys of a list that was put aside and not brought back; none if there is no such file."""
    path = _aside(state)
    lines = path.read_bytes().split() if path.exists() else []
    return {records.FORGOTTEN + line for line in lines}


def remove_aside(state: Path) -> None:
    """The list that was put aside is in `model-state` again."""
    _aside(state).unlink(missing_ok=True)


def check_reset(state: Path) -> None:
    """Refused if a list was put aside: without it a worker would learn from forgotten users."""
    if (path := _aside(state)).exists():
        raise Refused(
            f"{path}: `walkstream reset --topics` did not come to its end, and the list of "
            "forgotten users may be in this file only. Run it again: it brings them back"
        )


def _aside(state: Path) -> Path:
    return state.with_name(f"{state.name}.forgotten")
