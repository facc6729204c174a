"""What is known of users: the items that they clicked last, and the vectors that follow from them.

A worker publishes both (`streamer.worker.users`), and `walkstream evaluate` ranks by them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from core.engine import Engine
from core.learning.skipgram import hidden
from core.placing.clusters import unit_rows
from core.placing.leaving import ready
from core.users import Profiles, interests, means
from streamer.settings.sections import UserVectorSettings
from streamer.state.users import Clicked, Known


class Click(NamedTuple):
    item: str
    time: int
    weight: float
    event_id: int
    partition: int


def after(
    old: Known, clicks: Sequence[Click], settings: UserVectorSettings, event_ids: int
) -> Known:
    """What is known of a user after these clicks, one at least, of whose ids the last `event_ids`
    are remembered."""
    history = {one.item: one for one in old.history}
    ids = list(old.event_ids)
    for item, time, weight, event_id, _ in clicks:
        if event_id and event_ids:
            if (name := f"{event_id:x}") in ids:
                continue
            ids = [*ids, name][-event_ids:]
        was = history.pop(item, None)
        history[item] = _followed(was, item, weight, time, int(settings.half_life))
        if len(history) > settings.items:
            del history[next(iter(history))]
    newest = [*history.values()][-settings.items :]
    ts = max([old.ts, *(one.time for one in clicks)])
    return Known(old.user_id, ts, clicks[-1].partition, newest, ids)


def _followed(
    was: Clicked | None, item: str, weight: float, time: int, half_life: int
) -> Clicked:  # fmt: skip
    """An entry of a history after one more click, at a time (ms) that may be before the last."""
    if was is None:
        return Clicked(item, weight, time)
    newest = max(was.time, time)
    total = was.weight * 2.0 ** ((was.time - newest) / half_life)
    total += weight * 2.0 ** ((time - newest) / half_life)
    return Clicked(item, total, newest)


def profiles(
    users: Iterable[Known], engine: Engine, settings: UserVectorSettings
) -> tuple[Profiles, list[str | None]]:
    """The vectors of users, from the items as the engine has them now, and the item of each, None
    for a mean. Items that left, or are not learned yet, are passed over."""
    users, model = list(users), engine.model
    entries = [one for user in users for one in reversed(user.history)]
    owner = np.repeat(np.arange(len(users)), [len(user.history) for user in users])
    number = {item: n for n, item in enumerate(dict.fromkeys(one.item for one in entries))}
    get = engine.vocabulary.get
    slots = np.array([-1 if (slot := get(item)) is None else slot for item in number], np.int32)
    is_known = slots >= 0
    there = slots[is_known]
    is_known[is_known] = ready(model, there)
    at = np.array([number[one.item] for one in entries], np.int64)
    kept = np.flatnonzero(is_known[at])
    at, owner, slots = (np.cumsum(is_known) - 1)[at[kept]], owner[kept], slots[is_known]
    v, u = unit_rows(hidden(model.rows, slots)), unit_rows(model.rows.u[slots])
    newest = np.array([user.ts for user in users], np.int64)[owner]
    ages = newest - np.array([one.time for one in entries], np.int64)[kept]
    weights = np.array([one.weight for one in entries], np.float64)[kept]
    weights *= 2.0 ** (-ages / int(settings.half_life))
    begin = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(users)))])
    if settings.kind == "mean":
        found = means(v, u, at, weights, begin)
    else:
        found = interests(v, u, at, weights, begin, settings.interests)
    medoids = found.medoid.tolist()
    return found, [entries[kept[n]].item if n >= 0 else None for n in medoids]
