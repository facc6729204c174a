"""Kills of several workers, with all that may be switched on: vectors of users, ids that are held
back, and clusters that items found, or vectors that leave as residuals.

In the end each click is evidence once; ids are admitted, and graphs are, as where the whole log is
folded in its order by somebody whom nobody disturbed; nothing that was admitted is held back again;
histories of users have each of their clicks once, those who are idle or forgotten are gone, and
all folders have what the topics have.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from broker import Broker
from chaos import Say
from kills import Stream, came_back
from late_commits import audit, behind
from many import AT_ONCE, CLICKS_A_KILL, Fates, Team, twice, unlike, unlike_topic
from many import SETTINGS as MANY

from core.engine import Engine
from streamer.demo.shop import Shop
from streamer.export.published import Published, from_folder, from_topic
from streamer.settings.sections import Config
from streamer.state import evidence
from tests.folders import contents, counts_of, graph_of, table_and_graph
from tests.support import START_MS, App, as_records
from tests.users import assert_histories, histories, last_of, of_folder

HOUR, DAY = 3_600_000, 86_400_000
HALF_LIFE, MOST = HOUR, 12
SETTINGS: dict[str, object] = {
    **MANY,
    "user_vectors.kind": "interests",
    "user_vectors.items": MOST,
    "user_vectors.half_life": "1h",
    "user_vectors.idle": "3d",
    "admission.min_events": 2,
    "admission.min_users": 2,
    # As many random ids come that a quarter of them leaves again and again.
    "admission.most": 1000,
}
BY_SEED: tuple[dict[str, object], ...] = (
    {"clusters.spawn": 0.4, "clusters.most": 40},
    {"publish.form": "residual"},
)
"""Of even seeds, and of odd ones: residuals need centroids that stand for an epoch."""
EARLY = 1_500
"""Clicks of users who never come back, before a pause that makes them idle."""
LATER = 300
"""Clicks of the shop until somebody else clicks a random id once more."""
CLOSE = 0.999
"""Least cosine of a vector that is put together of centroid and residual with the row's."""


def log_of(seed: int) -> Iterator[dict[str, Any]]:
    """A shop's clicks without end; every fourth is followed by a bot's, on an id of its own, and of
    these every fifth comes once more, LATER, by who visits the shop."""
    for n, click in enumerate(Shop(seed, products=300, users=400).clicks(START_MS, 1.0)):
        if n < EARLY:
            click["user_id"] = f"early-{click['user_id']}"
        else:
            click["ts"] += 4 * DAY
        yield click
        if n % 4 == 3:
            yield {**_random(click, n), "user_id": f"{'early-' * (n < EARLY)}bot-{n % 100}"}
        if n % 20 == 19 and n >= EARLY + LATER:
            yield {**_random(click, n - LATER), "event_id": f"again-{n}"}


def _random(click: Mapping[str, Any], n: int) -> dict[str, Any]:
    return {**click, "item_id": f"random-{n}", "event_id": f"random-{n}"}


class Everything(Fates):
    """And users are forgotten, and major updates asked for, meanwhile."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kinds |= {"forget": (3, self._forget), "major": (1, self._major)}
        self.forgotten: set[bytes] = set()
        self.majors = 0

    def _forget(self, _: str) -> None:
        user = f"user-{self.chance.randrange(400):04d}"
        if self._asks("forget", user):
            self.forgotten.add(user.encode())

    def _major(self, _: str) -> None:
        self.majors += self._asks("major")

    def _asks(self, *command: str) -> bool:
        done = self.team.app.command(*command)
        if done.wait() != 0:  # the broker may have just come back
            self.team.say(f"{' '.join(command)}: {done.output.splitlines()[-1]}")
        return done.wait() == 0


def folded(app: App) -> Engine:
    """An engine that has folded the whole log in its order, from its beginning."""
    once = Engine(app.config.engine_settings)
    once.graph.begin_again(0)
    for message in app.read(app.config.topics.transitions):
        for one in evidence.unpack(message.value() or b"").rounds:
            once.fold_again(one, 1)
    return once


def wrong_of(
    team: Team, names: list[str], clicks: list[dict[str, Any]], forgotten: set[bytes],
    retired: set[bytes],
) -> list[str]:  # fmt: skip
    """What is lost, doubled or differs in topics and folders, once all workers are stopped."""
    app = team.app
    wrong = [*twice(app, forgotten), *came_back(app, retired, team.config(names[0]))]
    once = folded(app)
    tables, graphs = {"the log": counts_of(once)}, {"the log": graph_of(once)}
    for name in names:
        config = team.config(name)
        told = [*audit(app, config), *behind(app, config), *unlike_topic(app, config)]
        wrong += [f"{name}: {sentence}" for sentence in told]
        tables[name], graphs[name] = table_and_graph(config)
    wrong += unlike("counted ids", tables) + unlike("graph", graphs)
    placements = {name: {"all": contents(team.config(name)).placement} for name in names}
    wrong += unlike("placement", placements)
    wrong += held_back(app, once) + unlike_vectors(team.config(names[0]))
    here = {name: of_folder(team.folder(name)) for name in names}
    topic = last_of(app.read(app.config.topics.user_vectors))
    return wrong + unlike("users", {"the topic": topic, **here}) + miscounted(
        topic, clicks, forgotten, app.config
    )  # fmt: skip


def held_back(app: App, once: Engine) -> list[str]:
    """Items that left though they were admitted, and vectors of such as are not."""
    vectors = app.read(app.config.topics.item_vectors)
    keys = {m.key() or b"" for m in vectors}
    names = sorted(key.decode() for key in keys if not key.startswith((b"\xff", b"shelf-")))
    admitted = once.catalogue.admission.has(names).tolist()
    left = {m.key() or b"" for m in vectors if m.value() is None}
    wrong = []
    if strange := [name for name, has in zip(names, admitted, strict=True) if not has]:
        wrong.append(f"{len(strange)} ids have vectors and are not admitted, such as {strange[0]}")
    if lost := [name for name in names if name.encode() in left]:
        wrong.append(f"{len(lost)} items left that were admitted, such as {lost[0]}")
    return wrong


def unlike_vectors(config: Config) -> list[str]:
    """How vectors that are put together of the topic's centroids and residuals are not those of the
    rows in a folder."""
    here, there = from_folder(Path(config.state.dir), None), from_topic(config, None)
    if here.items != there.items or (here.versions != there.versions).any():
        return [f"{len(here.items)} vectors in the folder, {len(there.items)} in the topic"]
    wrong = []
    for what in ("vectors", "contexts"):
        cosines = (_of(here, what) * _of(there, what)).sum(axis=1)
        if (cosines < CLOSE).any():
            at = int(np.argmin(cosines))
            wrong.append(
                f"{(cosines < CLOSE).sum()} {what} of the topic are not those of the folder, such "
                f"as that of {here.items[at]}: cosine {cosines[at]:.4f}"
            )
    if (here.clusters != there.clusters).any():
        wrong.append(f"{(here.clusters != there.clusters).sum()} clusters differ")
    return wrong


def _of(published: Published, what: str) -> Any:
    return getattr(published, what)


def miscounted(
    topic: dict[bytes, bytes], clicks: list[dict[str, Any]], forgotten: set[bytes], config: Config
) -> list[str]:
    """Users whose records are not what their clicks make, each once."""
    gone = {user.decode() for user in forgotten}
    wanted = histories(clicks, config.events.weights, HALF_LIFE, MOST)
    stay = {
        user: history
        for user, history in wanted.items()
        if user not in gone and not user.startswith("early-")
    }
    try:
        read = assert_histories(topic, stay)
    except AssertionError as error:
        return [f"users: {str(error)[:300]}"]
    wrong = []
    for user, record in read.items():
        items, total = {one.item for one in record.history}, sum(o.weight for o in record.vectors)
        lengths = [float(np.linalg.norm(x)) for one in record.vectors for x in one.arrays]
        if not {one.item for one in record.vectors} <= items or total > 1 + 1e-5:
            wrong.append(f"user {user}: vectors of {total:.6f}, of what is not in the history")
        if any(abs(length - 1) > 1e-3 for length in lengths):
            wrong.append(f"user {user}: vectors of the lengths {lengths}")
    return wrong


def run(kills: int, seed: int, say: Say) -> tuple[list[str], bool]:
    """Two workers, and a third now and then, so many kills, and what else happens between."""
    raw = list(islice(log_of(seed), EARLY + kills * CLICKS_A_KILL))
    with (
        tempfile.TemporaryDirectory(prefix="walkstream-everything-") as folder,
        Broker() as broker,
        App(broker.bootstrap, Path(folder), SETTINGS | BY_SEED[seed % 2]) as app,
    ):
        team, names = Team(app, say), ["a", "b"]
        fates = Everything(team, broker, names, random.Random(seed))
        with Stream(app, as_records(raw), random.Random(seed), AT_ONCE) as stream:
            fates.go_through(kills)
        team.finish()
        wrong = wrong_of(team, names, raw[: stream.sent], fates.forgotten, stream.retired)
        kinds = Counter(
            "admitted" if entry[1] < 0 else "held back"
            for entry in table_and_graph(team.config("a"))[0].values()
        )
        users = len(of_folder(team.folder("a")))
    told = ", ".join(f"`{name} = {value}`" for name, value in BY_SEED[seed % 2].items())
    lines = [
        f"- {stream.sent:,} clicks, {told}; two workers, {fates.done['kill']} times kill -9 of one "
        "of them",
        *fates.told,
        f"- users that were forgotten: {len(fates.forgotten)}; major updates that were asked for: "
        f"{fates.majors}",
        f"- in the end {users} users, {kinds['admitted']} ids that are admitted, and "
        f"{kinds['held back']} that are held back",
        *(f"- **{sentence}**" for sentence in wrong),
    ]
    return lines, not wrong
