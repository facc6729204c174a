"""`walkstream hand-over`: a model gets another app.name, and goes on where it is.

The header in `model-state` says whose model it is. It is written anew under the transactional id of
the worker that committed last, so that one which is still about to commit is fenced and cannot.
"""

from contextlib import closing
from dataclasses import replace

import msgspec
from confluent_kafka.admin import AdminClient

from streamer.admin import forget
from streamer.errors import ConfigError, Refused
from streamer.kafka import clients, rights
from streamer.kafka.identity import identity
from streamer.kafka.members import other_members
from streamer.kafka.transactions import Transactions
from streamer.settings.sections import Config
from streamer.state import commits, records
from streamer.state.commits import Manifest
from streamer.state.model_state import reserved
from streamer.state.records import Space
from streamer.terminal import say
from streamer.worker import claiming
from streamer.worker.readback import Readback


def run(config: Config, old: str) -> None:
    """Hand the model over from the app `old` to `app.name`. Refused while a worker of it runs.

    Refused too if the model is another app's, or does not fit the settings. `old` may be the name
    itself where the header of an older version has none.
    """
    new, topic = config.app.name, config.topics.model_state
    before = replace(config, app=replace(config.app, name=old))
    # It writes as the last worker did, and reads what that wrote.
    with rights.allowed(before, "hand-over") as admin:
        _refuse_members(before, admin)
        space, manifest, has_forgotten = _found(before, admin)
        if space is None:
            raise Refused(f"{topic} has no model: there is nothing to hand over")
        if old == new and space.app:
            raise ConfigError(
                f"--from {old}: this is app.name already; set app.name to the new name"
            )
        if space.app == new:
            print(f"{topic} is the model of app {new} already")
            return
        if space.app not in ("", old):
            raise Refused(f"{topic} is the model of app {space.app!r}, not of {old!r}")
        space.check(Space.of(config.engine_settings, space.partitions), f"the topic {topic}")
        if manifest is not None:
            before = replace(before, app=replace(before.app, instance=manifest.instance))
        transactions = Transactions(before)
        now = identity(admin, config)
        with closing(Readback(before, now, admin, lambda: None)) as readback:
            readback.start(repair=False)
            is_renamed = old != new
            hashed = {forget.former(old): b"\x01"} if has_forgotten and is_renamed else {}
            former = {*space.former, old} - {new}
            owned = msgspec.structs.replace(space, app=new, former=sorted(former))
            # A worker that joined since then believes the header that it read.
            claiming.claim(
                before,
                owned,
                hashed,
                readback,
                transactions,
                lambda: _refuse_members(before, admin),
            )
    say(
        f"{topic} is the model of app {new} now. Start its worker: it goes on behind the last "
        + (f"commit of {old}, whose group is of no use any more" if is_renamed else "commit")
    )


def _found(config: Config, admin: AdminClient) -> tuple[Space | None, Manifest | None, bool]:
    """The header and the newest manifest in `model-state`, and whether users are forgotten."""
    where = [(config.topics.model_state, 0)]
    with closing(clients.tail_consumer(config)) as consumer:
        found = reserved(consumer, clients.begins(admin, where), clients.ends(admin, where))
    header = found.get(records.SPACE)
    return (
        msgspec.msgpack.decode(header, type=Space) if header else None,
        commits.newest_manifest(found.items()),
        any(key.startswith(records.FORGOTTEN) for key in found),
    )


def _refuse_members(config: Config, admin: AdminClient) -> None:
    # No worker has a name that ends so: each of them is another member.
    name, nobody = config.app.name, replace(config, app=replace(config.app, instance=""))
    if members := other_members(admin, nobody):
        session = clients.session_seconds(config)
        raise Refused(
            f"group {name} has a member ({', '.join(members)}): stop the workers of {name}, wait "
            f"until their sessions have ended ({session:g} s), then do this again"
        )
