"""Items for users (u2i): ranks by the vectors of whoever clicks, as `user_vectors.kind` makes them.

A user is known by all clicks until then, also those of the same round, as a worker would know them
by its next commit; vectors of items are those of before the round, as for all other rankers. Each
interest has its list, and lists are merged as those of `walkstream query --user`, but nothing of
the history is left out that others do not leave out: the trials are the same.
"""

import numpy as np
from numpy.typing import NDArray

from core.clicks import Clicks
from core.engine import Engine
from core.quality import DEPTH
from core.users import Profiles, in_turn
from streamer import histories
from streamer.evaluate.past import Past, Positions
from streamer.evaluate.rankers import Asked, Mode, Model, Ranks, chunks
from streamer.histories import Click
from streamer.query.index import best
from streamer.settings.sections import Config
from streamer.state.users import Known

BY = ", user"


class OfUsers:
    """Ranks by V^a.V^b ("similar, user") and by the score of `next` ("next, user"), where V^a and
    U^a are a user's. What is not among the first DEPTH is not found."""

    def __init__(self, engine: Engine, past: Past, config: Config, modes: tuple[Mode, ...]) -> None:
        self.engine, self.past, self.settings = engine, past, config.user_vectors
        self._event_ids = config.session.event_ids
        self.model = Model(tuple(mode for mode in modes if mode != "hybrid"))
        self._known: dict[str, Known] = {}
        self._at: dict[int, Known] = {}
        """By the number of a click of this round: what was known of its user before it."""

    def take(self, clicks: Clicks, positions: Positions) -> None:
        """Take the clicks of a round in that `past` just took, which has these positions. Ranks are
        asked for at some of them."""
        n = len(clicks)
        begin = self.past.clicks - n
        chosen = set((positions.click - begin).tolist())
        event_ids = [0] * n if clicks.event_ids is None else clicks.event_ids.tolist()
        columns = zip(
            clicks.users, clicks.items, clicks.times.tolist(), clicks.weights.tolist(), event_ids,
            strict=True,
        )  # fmt: skip
        new: dict[str, list[Click]] = {}
        self._at = {}
        for k, (user, item, time, weight, event_id) in enumerate(columns):
            if k in chosen:
                self._follow(user, new.pop(user, []))
                self._at[begin + k] = self._known[user]
            if weight > 0.0:  # or else it is an impression
                new.setdefault(user, []).append(Click(item, time, weight, event_id, 0))
        for user, some in new.items():
            self._follow(user, some)

    def _follow(self, user: str, clicks: list[Click]) -> None:
        if not clicks:
            return
        known = self._known.get(user, Known(user, clicks[0].time, 0, []))
        newest, first = known.ts, 0
        for n, click in enumerate(clicks):
            if click.time - newest > int(self.settings.idle):
                known, first = Known(user, click.time, 0, []), n
            newest = max(newest, click.time)
        some = clicks[first:]
        self._known[user] = histories.after(known, some, self.settings, self._event_ids)

    def __call__(self, asked: Asked) -> Ranks:
        v, u = self.model.vectors(asked)
        known = [self._at[click] for click in asked.positions.click.tolist()]
        found, _ = histories.profiles(known, self.engine, self.settings)
        out = {mode + BY: np.full(len(asked), asked.last, np.int32) for mode in self.model.modes}
        for at in chunks(len(asked)):
            own = slice(found.begin[at.start], found.begin[at.stop])
            scores = found.vectors[own] @ v.T
            if "similar" in self.model.modes:
                _merged(asked, at, found, scores, out["similar" + BY])
            if "next" in self.model.modes:
                scores += found.contexts[own] @ v.T
                scores += found.vectors[own] @ u.T
                _merged(asked, at, found, scores, out["next" + BY])
        return out


def _merged(
    asked: Asked, at: slice, found: Profiles, scores: NDArray[np.float32], out: NDArray[np.int32]
) -> None:
    """Ranks of the targets of the positions `at` into `out`, where a user's lists have them; scores
    float32 [vectors of these positions, n]."""
    first = found.begin[at.start]
    for i in range(at.start, at.stop):
        own = slice(found.begin[i], found.begin[i + 1])
        never = asked.left_out_columns[asked.left_out_begin[i] : asked.left_out_begin[i + 1]]
        lists = [_best(row, never) for row in scores[own.start - first : own.stop - first]]
        order = in_turn([len(one) for one in lists], found.share[own].tolist())
        shown = list(dict.fromkeys(lists[number][rank] for number, rank in order))[:DEPTH]
        if asked.target[i] in shown:
            out[i] = shown.index(asked.target[i])


def _best(scores: NDArray[np.float32], never: NDArray[np.int32]) -> list[int]:
    """The DEPTH best columns of scores float32 [n], the best first and the older one of equals,
    without these."""
    scores = scores.copy()
    scores[never] = -np.inf
    depth = min(DEPTH, len(scores) - len(never))
    return best(scores, depth) if depth > 0 else []


def of(
    engine: Engine, past: Past, config: Config, modes: tuple[Mode, ...]
) -> list[OfUsers]:  # fmt: skip
    """The ranker of these settings; none without `user_vectors.kind`, or where only `hybrid` is
    asked."""
    is_on = config.user_vectors.kind != "off" and modes != ("hybrid",)
    return [OfUsers(engine, past, config, modes)] if is_on else []
