"""The records of `item-vectors`: what the world gets."""

from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from core.placing.placement import Placement
from core.placing.quantised import centres, quantised
from core.rounds import Changes
from streamer.errors import WalkstreamError
from streamer.wording import counted

Format = Literal["json", "msgpack"]

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


class _Residual(msgspec.Struct):
    """The same, where vectors come as what is left besides the centroid."""

    item_id: str
    version: int
    space: str
    epoch: int
    residual: bytes
    """int8, in base64 where the record is JSON, as below. The vector is this times the first of
    `scales`, and the centroid of the cluster in this epoch, if it has one, added; to length 1."""
    context_int8: bytes
    scales: tuple[float, float]
    norms: tuple[float, float]
    cluster: int | None
    buckets: list[str]
    updates: int
    ts: int


CENTROIDS = b"\xffcentroids/"
"""Beginning of the keys of centroids, which no item's can have; then comes the epoch. Those of an
epoch stay as long as there is something that was published in it last."""


class Centroids(msgspec.Struct):
    """A record of `item-vectors` that is of no item."""

    space: str
    epoch: int
    count: int
    centroids: bytes
    """[count, dim] little-endian float32, in base64 where the record is JSON."""


def centroids(placement: Placement, space: str, fmt: Format) -> tuple[bytes, bytes]:
    """Key and value of the record that residuals of this epoch are added to."""
    rows = placement.centroids.astype("<f4")
    encode = _to_json if fmt == "json" else _to_msgpack
    record = Centroids(space, placement.epoch, len(rows), rows.tobytes())
    return centroids_key(placement.epoch), encode(record)


def centroids_key(epoch: int) -> bytes:
    return CENTROIDS + str(epoch).encode()


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
    changes: Changes, space: str, fmt: Format, form: Literal["full", "residual"] = "full"
) -> Iterator[tuple[bytes, bytes | None]]:
    """Key and value of each record of `item-vectors`, tombstones last.

    WalkstreamError if one of them would be no vector.
    """
    _check_finite(changes)
    yield from _full(changes, space, fmt) if form == "full" else _residuals(changes, space, fmt)
    for gone in changes.gone:
        if gone.was_published:
            yield gone.key, None


def _residuals(changes: Changes, space: str, fmt: Format) -> Iterator[tuple[bytes, bytes]]:
    chosen = changes.rows[changes.published]
    centre = centres(chosen["cluster"], changes.placed_by.centroids, changes.vectors.shape[1])
    residual, scale = quantised(changes.vectors - centre)
    context, context_scale = quantised(changes.contexts)
    encode = _to_json if fmt == "json" else _to_msgpack
    columns = zip(
        changes.published.tolist(), chosen["version"].tolist(), chosen["epoch"].tolist(),
        residual, context, zip(scale.tolist(), context_scale.tolist(), strict=True),
        changes.lengths.astype(np.float64).round(4).tolist(), chosen["cluster"].tolist(),
        chosen["buckets"].tolist(), chosen["updates"].tolist(), strict=True,
    )  # fmt: skip
    for at, version, epoch, own, other, scales, norms, cluster, buckets, updates in columns:
        key = changes.keys[at]
        record = _Residual(
            key.decode(), version, space, epoch, own.tobytes(), other.tobytes(), scales,
            (norms[0], norms[1]), cluster if cluster >= 0 else None,
            [f"{bucket:x}" for bucket in buckets], updates, max(changes.time, 0),
        )  # fmt: skip
        yield key, encode(record)


def _full(changes: Changes, space: str, fmt: Format) -> Iterator[tuple[bytes, bytes]]:
    chosen, rules = changes.rows[changes.published], changes.placed_by.rules
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
                    rules.name(cluster) if rules and cluster >= 0 else None,
                )
            ),
        )
