"""The records of `item-vectors`: what the world gets."""

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from core.rounds import Changes
from streamer.errors import WalkstreamError
from streamer.wording import counted

_to_msgpack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode


class _Vector(msgspec.Struct, omit_defaults=True):
    """A record of `item-vectors`."""

    item_id: str
    version: int
    space: str
    vector: msgspec.Raw | bytes
    context: msgspec.Raw | bytes
    norms: tuple[float, float]
    cluster: int | None
    buckets: list[str]
    updates: int
    ts: int
    cluster_name: str | None = None
    """Where items are in clusters by rules."""


def json_rows(xs: NDArray[np.float32]) -> list[msgspec.Raw | bytes]:
    """Each row of xs as a JSON array; all are written in one call, which is twice as fast."""
    if len(xs) == 0:
        return []
    # Six decimals of a unit vector's entries lose less than float32's own rounding of a cosine.
    text = orjson.dumps(xs.round(6), option=orjson.OPT_SERIALIZE_NUMPY)
    return [msgspec.Raw(b"[%b]" % row) for row in text[2:-2].split(b"],[")]


def _check_finite(changes: Changes) -> None:
    """WalkstreamError if a row that is to leave has numbers that are none."""
    bad = np.zeros(len(changes.keys), np.bool_)
    for name in ("v", "u", "mix", "acc_v", "acc_u"):
        finite = np.isfinite(changes.rows[name])
        bad |= ~(finite if finite.ndim == 1 else finite.all(axis=1))
    for vectors in (changes.vectors, changes.contexts):
        bad[changes.published] |= ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        first = changes.keys[int(np.argmax(bad))].decode(errors="replace")
        raise WalkstreamError(
            f"{counted(int(bad.sum()), 'row')} that would leave, the first of {first!r}, have "
            "numbers that are not finite: nothing of this is committed, and item-vectors is as it "
            "was. Start again: the worker goes on from the commit before. If it comes again, the "
            "rows are in the model already: `walkstream reset --topics`, and all is learned anew "
            "from the clicks. Keep this line for a report"
        )


def records(
    changes: Changes, space: str, fmt: Literal["json", "msgpack"]
) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of each record of `item-vectors`, tombstones last.

    WalkstreamError if one of them would be no vector.
    """
    _check_finite(changes)
    chosen = changes.rows[changes.published]
    if fmt == "json":
        encode = _to_json
        spread = [json_rows(xs) for xs in (changes.vectors, changes.contexts)]
    else:
        encode = _to_msgpack
        spread = [
            [x.tobytes() for x in xs.astype("<f4")] for xs in (changes.vectors, changes.contexts)
        ]
    columns = zip(
        changes.published.tolist(),
        chosen["version"].tolist(),
        *spread,
        changes.lengths.astype(np.float64).round(4).tolist(),
        chosen["cluster"].tolist(),
        chosen["buckets"].tolist(),
        chosen["updates"].tolist(),
        strict=True,
    )
    for at, version, vector, context, norms, cluster, buckets, updates in columns:
        key = changes.keys[at]
        yield (
            key,
            encode(
                _Vector(
                    key.decode(),
                    version,
                    space,
                    vector,
                    context,
                    (norms[0], norms[1]),
                    cluster if cluster >= 0 else None,
                    [f"{bucket:x}" for bucket in buckets],
                    updates,
                    max(changes.time, 0),
                    changes.rules.name(cluster) if changes.rules and cluster >= 0 else None,
                )
            ),
        )
    for gone in changes.gone:
        if gone.was_published:
            yield gone.key, None
