"""The challenger of a worker: when it begins and rests, how it comes back, and that it took over.

It learns where one worker has everything, and is in the memory of that worker. Only a clean stop
writes it to the state folder; after anything else it begins anew as the champion is by then. Its
test goes on where what it has found is known: after a clean stop, and after a rest beside other
workers in the same process. Else it begins anew, too, with an error of its own: it is that of each
life of a challenger, and not of all of them.

That it took over is a record of `model-state`, which leaves with the commit of its first rows: a
restart goes on by its settings, as long as the configuration names the two that were compared. Rows
that had not left by then are read as the champion's, and are learned again (`Engine.outdated`).

Where its vectors and the champion's could not be compared, the header of a new vector space leaves
with the same commit: whatever has been read of that commit, the space is the old one or the new.
"""

import logging
from collections.abc import Iterator
from hashlib import blake2b

import msgspec
import numpy as np

from core.challenger import Challenger
from core.engine import Engine
from core.ids.vocabulary import decode, encode
from core.learning.tiers import ALL
from core.rounds import Changes
from core.sequential import SequentialTest
from core.settings import Settings
from core.terms import MAY_DIFFER
from streamer.settings import challenger
from streamer.settings.sections import Config
from streamer.state.records import Promoted, Space
from streamer.state.store import Store
from streamer.watch.metrics import CONTEST, Metrics

log = logging.getLogger(__name__)

KEY = b"challenger"
"""In the folder: where the test stood at the last clean stop, and behind a slash the rows."""
PART = 2000
"""Rows that are written together."""
_LEARNED = "v", "u", "acc_v", "acc_u", "mix"


def digest(settings: Settings) -> str:
    """What tells settings apart in which a challenger may differ."""
    packed = msgspec.json.encode([getattr(settings, section) for section in MAY_DIFFER])
    return blake2b(packed, digest_size=8).hexdigest()


def in_force(config: Config, found: Promoted | None) -> Settings:
    """The settings to learn by: those of the configuration, or those of its challenger, where it is
    `found` that one took over, of these two."""
    champion, own = config.engine_settings, challenger.settings(config)
    if found is None or own is None:
        return champion
    took_over = (found.champion, found.challenger) == (digest(champion), digest(own))
    return own if took_over else champion


def tell(config: Config, found: Promoted | None) -> None:
    """Say by which settings a worker begins to learn, where one took over."""
    if found is None:
        return
    settings = in_force(config, found)
    if settings != config.engine_settings:
        log.info(
            "the challenger took over with commit %d, and its settings are those of the model. To "
            "have them for good, make them the main settings and take [challenger] out",
            found.commit,
        )
    elif is_void(settings, found):
        log.warning(
            "a challenger took over with commit %d, and neither the settings nor [challenger] are "
            "what they were then: learning goes on by the settings as they are", found.commit,
        )  # fmt: skip


def outdated(settings: Settings, found: Promoted | None, space: Space) -> dict[int, int]:
    """`Engine.outdated` of one that learns by these settings, which may be the main ones by now, in
    this space, to which no row belongs that is older."""
    out = dict.fromkeys(range(space.partitions), space.since - 1) if space.since else {}
    versions = {} if found is None or is_void(settings, found) else found.versions
    return out | {p: max(version, out.get(p, 0)) for p, version in versions.items()}


def is_void(settings: Settings, found: Promoted | None) -> bool:
    """Whether it is `found` that others are the settings of the model than these."""
    return found is not None and found.challenger != digest(settings)


def unlike(config: Config, found: Promoted | None) -> str:
    """Why a worker of this configuration may not learn beside those that run, which go by what is
    `found`; nothing if it may."""
    if found is None:
        return ""
    own = challenger.settings(config)
    names = digest(config.engine_settings), None if own is None else digest(own)
    both = found.champion, found.challenger
    if names == both or names[0] == found.challenger:
        return ""
    return (
        f"the workers that run learn by the settings of a challenger that took over with commit "
        f"{found.commit}, and this one would learn by others. Let it have their settings and their "
        "[challenger], or make those settings the main ones of all"
    )


def record(
    config: Config, engine: Engine, number: int, changes: Changes, voids: bool
) -> bytes | None:
    """What a commit of this number says if the challenger took over with it, or if it `voids` what
    an earlier one said: then a worker that joins is not held to that."""
    champion, own, told = digest(config.engine_settings), digest(engine.settings), changes.promotion
    if told is not None:
        found = Promoted(
            number, champion, own, changes.time, told.wins, told.losses, told.agreement,
            engine.outdated, told.is_new_space,
        )  # fmt: skip
    elif voids:
        found = Promoted(number, own, own, changes.time, 0, 0, 1.0)
    else:
        return None
    return msgspec.msgpack.encode(found)


class _Head(msgspec.Struct, frozen=True):
    """All of a challenger at a stop but its rows."""

    commit: int
    champion: str
    challenger: str
    half_life: int
    """That of accumulators, ms."""
    landmark: int
    time: int
    wins: int
    losses: int
    logs: bytes
    greatest: float
    rows: int


class _Part(msgspec.Struct, frozen=True):
    """Some of its rows: of these keys, one column after the other."""

    keys: list[bytes]
    columns: list[bytes]
    updates: bytes
    dims: bytes = b""
    """Those that each row has (`core.learning.tiers`). Empty where an older version wrote it: all
    had all."""


class Contest:
    """Begins and ends the challenger of a worker, and tells of it."""

    def __init__(self, config: Config, store: Store, engine: Engine, metrics: Metrics) -> None:
        self.store, self.engine, self.metrics = store, engine, metrics
        self.champion, self.settings = config.engine_settings, challenger.settings(config)
        self.terms = config.challenger
        self._test: SequentialTest | None = None
        """That of the challenger that rests."""
        self._told_rest = False
        """Whether it was said that the challenger rests."""
        self._show("off")

    @property
    def is_over(self) -> bool:
        """Whether there is none, or it took over."""
        return self.settings is None or self.engine.settings == self.settings

    def follow(self, is_alone: bool, commit: int) -> None:
        """Begin, or rest, as this worker has everything or not. The engine is as after `commit`."""
        engine, settings = self.engine, self.settings
        if settings is None or self.is_over:
            self._show("off" if settings is None else "promoted")
            forget(self.store)
        elif not is_alone:
            if engine.challenger is not None:
                self._test = engine.challenger.test
            engine.rest()
            self._show("resting")
            if not self._told_rest:
                self._told_rest = True
                log.warning(
                    "the challenger rests beside other workers: it learns where one worker has "
                    "everything, and begins as the champion is then"
                )
        elif engine.challenger is None:
            one = engine.challenge(settings, self.terms)
            head = stored(self.store, settings, self.champion, commit)
            if head is not None and restore(self.store, one, head):
                told = f"goes on with {one.test.wins:,} trials won and {one.test.losses:,} lost"
            else:
                if head is not None:  # it has some of the rows
                    one = engine.challenge(settings, self.terms)
                one.test, self._test = self._test or one.test, None
                told = "begins as the champion is"
            forget(self.store)
            log.info("a challenger learns beside the model: it %s", told)
            self._show("learning")

    def closing(self, changes: Changes) -> None:
        """A commit closes: tell how it stands."""
        one, promotion = self.engine.challenger, changes.promotion
        if promotion is not None:
            self._show("promoted")
            self.metrics.challenger_evidence.set(promotion.evidence)
            log.warning(
                "the challenger takes over: alone it hit %d trials, the champion alone %d; mean "
                "cosine of its vectors, turned onto the champion's: %.2f",
                promotion.wins, promotion.losses, promotion.agreement,
            )  # fmt: skip
        if promotion is not None and promotion.is_new_space:
            log.warning(
                "that is less than challenger.min_agreement (%g): old and new vectors cannot be "
                "compared, and a new space begins. Clusters are made anew, all vectors are "
                "published again, and readers are to go by those alone that have the new `space`",
                self.terms.min_agreement,
            )  # fmt: skip
        if one is None:
            return
        self.metrics.challenger_evidence.set(one.test.evidence)
        self._show("better" if one.test.is_better else "learning")

    def save(self, commit: int) -> None:
        """Write the challenger to the folder, as it is after this commit: part by part, and what
        says that they are all there behind them."""
        if (one := self.engine.challenger) is not None:
            forget(self.store)
            for entry in packed(one, self.champion, commit):
                self.store.write_entries({"meta": [entry]})

    def _show(self, state: str) -> None:
        for each in CONTEST:
            self.metrics.challenger_state.labels(each).set(each == state)


def forget(store: Store) -> None:
    """Delete what the folder has of a challenger."""
    if there := [key for key, _ in store.scan("meta", KEY)]:
        store.write_entries({"meta": [(key, None) for key in there]})


def packed(
    one: Challenger, champion: Settings, commit: int
) -> Iterator[tuple[bytes, bytes | None]]:
    """The entries of a folder that a challenger comes back from, the head last."""
    model, test, vocabulary = one.model, one.test, one.catalogue.vocabulary
    slots = np.flatnonzero(one.catalogue.model.columns.alive[: len(vocabulary)])
    for number, begin in enumerate(range(0, len(slots), PART)):
        at = slots[begin : begin + PART]
        columns = [getattr(model.rows, name)[at].tobytes() for name in _LEARNED]
        keys = [encode(name) for name in vocabulary.names(at)]
        updates, dims = (getattr(model.columns, name)[at].tobytes() for name in ("updates", "dims"))
        part = _Part(keys, columns, updates, dims)
        yield KEY + b"/%d" % number, msgspec.msgpack.encode(part)
    head = _Head(
        commit, digest(champion), digest(one.settings), one.settings.accumulator_half_life,
        model.landmark, model.time, test.wins, test.losses, test.logs.tobytes(), test.greatest,
        len(slots),
    )  # fmt: skip
    yield KEY, msgspec.msgpack.encode(head)


def stored(store: Store, settings: Settings, champion: Settings, commit: int) -> _Head | None:
    """What the folder says of a challenger of these settings, if it has one as of this commit."""
    value = store.meta(KEY)
    if value is None:
        return None
    head = msgspec.msgpack.decode(value, type=_Head)
    now = commit, digest(champion), digest(settings), settings.accumulator_half_life
    found = head.commit, head.champion, head.challenger, head.half_life
    return head if found == now else None


def restore(store: Store, one: Challenger, head: _Head) -> bool:
    """Give a challenger that has begun the rows that the folder has behind this head. If they are
    not all there, it may have some of them, and is to begin anew."""
    model, catalogue = one.model, one.catalogue
    restored = 0
    for number in range(-(-head.rows // PART)):
        value = store.meta(KEY + b"/%d" % number)
        if value is None:
            return False
        part = msgspec.msgpack.decode(value, type=_Part)
        found = [catalogue.vocabulary.get(decode(key)) for key in part.keys]
        at = np.array([slot for slot in found if slot is not None], np.int32)
        if len(at) < len(found):
            return False
        for name, column in zip(_LEARNED, part.columns, strict=True):
            table = getattr(model.rows, name)
            table[at] = np.frombuffer(column, table.dtype).reshape(len(at), *table.shape[1:])
        model.columns.updates[at] = np.frombuffer(part.updates, np.int64)
        model.columns.dims[at] = np.frombuffer(part.dims, np.int16) if part.dims else ALL
        model.has_narrow |= bool(model.columns.dims[at].any())
        restored += int(catalogue.model.columns.alive[at].sum())
    model.landmark, model.time = head.landmark, head.time
    one.test.wins, one.test.losses, one.test.greatest = head.wins, head.losses, head.greatest
    one.test.logs = np.frombuffer(head.logs).copy()
    return restored == int(catalogue.model.columns.alive.sum())
