"""`walkstream reset`: deletes what a worker has, so that it starts anew.

The state folder alone is a cache: the next start rebuilds it. With the topics the model goes too,
and the next start learns from the clicks again. The folder goes first and the group before the
topics: if a reset is killed in between, another one does the rest. The list of forgotten users must
survive: before anything is deleted it is copied to a file beside the folder, which stays there
until the list is in Kafka again.
"""

import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from rich.prompt import Confirm

from streamer.admin import forget
from streamer.errors import ConfigError, Refused
from streamer.kafka import clients, rights
from streamer.kafka import topics as all_topics
from streamer.kafka.clients import CALL_SECONDS
from streamer.kafka.failures import failure
from streamer.kafka.identity import USERS
from streamer.kafka.members import other_members
from streamer.settings.sections import Config
from streamer.state import folders, records
from streamer.state import store as stores
from streamer.terminal import say

DAMAGED, NEEDED = b"damaged", b"needed"
"""Stand for the origin of a folder that cannot be read, and of one that has more than Kafka."""
LEAVE_SECONDS = 5.0
"""How much longer than a session brokers may need to notice that a member is gone."""


def run(config: Config, topics: bool, dry_run: bool, yes: bool) -> None:
    """Delete the state folder and, with `topics`, the model in Kafka; says what, and asks first.

    Refused while a worker runs, and for a folder that is none of Walkstream's. ConfigError where
    `yes` is needed: without a terminal, and for a folder that cannot be rebuilt.
    """
    path = Path(config.state.dir)
    there = path.is_dir() and any(path.iterdir())
    origin = _inspect(path) if there else None
    asked = rights.allowed(config, "reset --topics") if topics else nullcontext()
    with asked as admin:
        _run(config, admin, path if there else None, origin, dry_run, yes)


def _run(
    config: Config, admin: AdminClient | None, there: Path | None, origin: bytes | None,
    dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """`there` is the state folder if there is one; without `admin`, Kafka is left alone."""
    path, topics = Path(config.state.dir), admin is not None
    if admin is not None:
        _wait_for_members(config, admin)
    if not there and not topics:
        print(f"{path}: there is no state folder, nothing to delete")
        return
    model = [] if admin is None else _model_topics(config, admin)
    say("\n".join(_plan(config, there, origin, [spec.name for spec in model])))
    if dry_run:
        print("nothing was changed: leave out --dry-run to do it")
        return
    if not yes:
        if origin in (stores.REPLAY, NEEDED, DAMAGED):
            raise ConfigError(
                f"{path} cannot be rebuilt, or cannot say so: give --yes if it shall go"
            )
        if sys.stdin is None or not sys.stdin.isatty():
            raise ConfigError("there is no terminal to ask: give --yes to do this")
        if not Confirm.ask("Do it?", default=False):
            print("nothing was changed")
            return
    # Read when all is agreed to: somebody may have been put on the list while it was asked for.
    forgotten = set() if admin is None else forget.listed(config, admin) | forget.read_aside(path)
    if forgotten:
        forget.put_aside(path, forgotten)
    if there:
        _delete_folder(path)
    if admin is not None:
        _delete_group(config, admin)
        all_topics.recreate(admin, model)
        forget.write(config, forgotten)
        forget.remove_aside(path)
    print("done")


def _model_topics(config: Config, admin: AdminClient) -> list[all_topics.TopicSpec]:
    """All topics but those that others write: clicks and items."""
    kept = config.topics.clicks, config.topics.items
    had_users = config.has_users or _had_users(config, admin)
    specs = all_topics.specs(config, had_users)
    return [spec for spec in specs if spec.name not in kept]


def _had_users(config: Config, admin: AdminClient) -> bool:
    """Whether this model has vectors of users, though it publishes none by now: once it does again,
    those of before would count. By the name of the topic alone it may be that of another app.
    Refused if it may not be deleted."""
    name = config.topics.user_vectors
    if name not in admin.list_topics(timeout=CALL_SECONDS).topics:
        return False
    header = forget.reserved_of(config, admin).get(records.SPACE)
    if header is None:
        return False
    space = msgspec.msgpack.decode(header, type=records.Space)
    was = (space.unused | space.topics).get(USERS)
    there = all_topics.describe(admin, [name]).get(name)
    if was is None or there is None or was.id not in ("", str(there.topic_id)):
        return False
    needed = (rights.Right(what, rights.TOPIC, name) for what in ("Delete", "Create"))
    rights.require(admin, "reset --topics", [*needed])
    return True


def _plan(config: Config, path: Path | None, origin: bytes | None, topics: list[str]) -> list[str]:
    lines = []
    if path is not None:
        fate = "the next start rebuilds it from Kafka"
        if origin == stores.REPLAY:
            fate = "it comes from `walkstream replay`, no worker took it over: it is lost for good"
        elif origin == NEEDED:
            fate = "a repair or an adopted replay is not all in Kafka yet; the rest goes for good"
        elif origin == DAMAGED:
            fate = (
                "it is damaged, and cannot say where it comes from: the next start of a worker "
                "rebuilds it from Kafka, what `walkstream replay` made is lost for good"
            )
        elif topics:
            fate = "with all that it holds"
            if origin == stores.ADOPTED:
                fate += ", and what `walkstream replay` learned from clicks that are not in Kafka"
        lines.append(f"delete the state folder {path}: {fate}")
    if topics:
        lines += [
            f"delete the offsets of group {config.app.name}",
            f"delete and create again, empty: {', '.join(topics)}",
            "  vectors and dead letters go with them; readers of vectors have to begin anew",
            f"keep {config.topics.clicks}, {config.topics.items} and the list of forgotten users",
            f"  the next start learns from the clicks again (start.position = "
            f"{config.start.position})",
        ]
    return lines


# -- the state folder ----------------------------------------------------------------------------


def _inspect(path: Path) -> bytes | None:
    """How the folder began (`store.ORIGIN`). Refused if it is no state folder, or in use."""
    refusal = f"{path}: this is no state folder of Walkstream, and reset does not touch it"
    try:
        folders.put_back(path)  # the state that counts, where it was not made anew yet
    except Exception as error:
        raise (_in_use(path) if "/LOCK:" in str(error) else error) from None
    if not folders.files(path):
        raise Refused(f"{refusal}: there is no database in it. Look at state.dir")
    # Opening writes to the folder: a database of another program must not be opened.
    if not folders.is_ours(path):
        raise Refused(f"{refusal}: its database is that of another program")
    try:
        store = stores.Store(path)  # takes the lock that a worker holds
        known = store.meta(records.SPACE) or store.meta(stores.IDENTITY)
        origin = store.meta(stores.ORIGIN)
        if origin != stores.REPLAY and store.holds_more:
            origin = NEEDED
        store.close()
    except Exception as error:
        if "/LOCK:" in str(error):
            raise _in_use(path) from error
        return DAMAGED
    if known is None:
        raise Refused(f"{refusal}: it holds neither vectors nor offsets")
    return origin


def _in_use(path: Path) -> Refused:
    return Refused(
        f"{path}: a process has this state folder open: stop the worker, then reset again"
    )


def _delete_folder(path: Path) -> None:
    """Delete the files of RocksDB, and the folder unless it is a mount or holds something else."""
    try:
        left = folders.delete(path)
    except Exception as error:
        if "/LOCK:" in str(error):
            raise _in_use(path) from error
        raise Refused(
            f"{path}: not all of it could be deleted ({error}). Look at the rights to the folder, "
            "then reset again"
        ) from error
    if left:
        say(f"{path}: what is not Walkstream's stays: {', '.join(left)}")


# -- Kafka ---------------------------------------------------------------------------------------


def _wait_for_members(config: Config, admin: AdminClient) -> None:
    """A worker that was stopped is a member until its session ends; one that runs stays."""
    # No worker has this name, so every member counts as another one.
    nobody = replace(config, app=replace(config.app, instance=""))
    session = clients.session_seconds(config)
    deadline, announced = time.monotonic() + session + LEAVE_SECONDS, False
    while members := other_members(admin, nobody):
        if time.monotonic() > deadline:
            raise Refused(
                f"group {config.app.name} has a member ({', '.join(members)}) for longer than a "
                "session without a worker lasts: stop the worker, then reset again"
            )
        if not announced:
            announced = True
            print(f"waiting for {', '.join(members)} to leave group {config.app.name}", flush=True)
        time.sleep(0.5)


def _delete_group(config: Config, admin: AdminClient) -> None:
    name = config.app.name
    try:
        admin.delete_consumer_groups([name], request_timeout=CALL_SECONDS)[name].result()
    except KafkaException as failed:
        error = failed.args[0]
        if error.code() == KafkaError.NON_EMPTY_GROUP:
            raise Refused(f"group {name} has a member by now: stop the worker") from None
        if error.code() != KafkaError.GROUP_ID_NOT_FOUND:
            raise failure(error, f"cannot delete the offsets of group {name}") from None
