"""What the values of a configuration must satisfy so that nothing breaks later."""

import math
import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from core.placing import quiet
from core.settings import MOST_MATCHED, NEGATIVES, RULE_BYTES
from streamer.decode.fields import AT_KEY, AT_TIMESTAMP, DEFAULT_TYPE
from streamer.decode.formats import MAX_ID_BYTES, MAX_PARTS
from streamer.decode.paths import alternatives
from streamer.settings.secrets import has_credentials

if TYPE_CHECKING:
    from streamer.settings.sections import Config

_ANY = sys.float_info.max
_POSITIVE = (math.nextafter(0.0, 1.0), _ANY)
_RATE = (_POSITIVE[0], 1000)
_FROM_0, _FROM_1 = (0.0, _ANY), (1.0, _ANY)
_RANGES: dict[str, tuple[float, float]] = {
    "topics.partitions": _FROM_1,
    "topics.replication": _FROM_1,
    "topics.min_insync_replicas": _FROM_1,
    "clicks.max_weight": (1, 1e9),
    "clicks.max_ahead": _FROM_0,
    "events.max_ahead": _FROM_0,
    "events.max_bytes": _FROM_1,
    "dlq.alarm_ratio": (_POSITIVE[0], 1),
    "dlq.stop_ratio": (0, 1),
    "dlq.window": _FROM_1,
    "session.max_events": _FROM_1,
    "session.event_ids": (0, 64),
    "quality.sample": (0, 10_000),
    "challenger.error": (1e-12, 0.5),
    "challenger.min_agreement": (-1, 1),
    "ready.max_lag": _POSITIVE,
    "session.gap": _POSITIVE,
    "session.length": (1, 64),
    "graph.half_life": _POSITIVE,
    "graph.horizon": _FROM_0,
    "admission.min_events": (1, 1_000_000),
    "admission.min_users": (1, 8),
    "admission.forget": _FROM_0,
    "admission.most": (1000, 1_000_000_000),
    "walks.per_node": _FROM_1,
    "walks.length": (2, 1000),
    "walks.replay": _FROM_0,
    "walks.p": (0.001, 1000),
    "walks.q": (0.001, 1000),
    "corpus.subsample": (0.0, 1.0),
    "negatives.alpha": _FROM_0,
    "negatives.draws": _FROM_1,
    **{f"negatives.{kind}": (0.0, 1.0) for kind in NEGATIVES},
    "model.window": _FROM_1,
    "model.negatives": _FROM_1,
    "model.block": (1, 32),
    "model.rate": _RATE,
    "model.initial_accumulator": (1e-30, 1e30),
    "model.forgetting": (0, 1000),
    "model.session_passes": _FROM_0,
    "model.session_decay": (_POSITIVE[0], 1),
    "model.session_negatives": _FROM_1,
    "model.session_rate": _RATE,
    "model.sharpness": (_POSITIVE[0], 1000),
    "model.attribute_slots": _FROM_0,
    "model.seed": (0, 2**63 - 1),
    "clusters.count": _FROM_1,
    "clusters.min_items": _FROM_1,
    "clusters.margin": _FROM_0,
    "clusters.spawn": (0.0, 1.0),
    "clusters.most": _FROM_1,
    "clusters.depth": _FROM_1,
    "clusters.min_size": _FROM_1,
    "residual.strength": (0, 1e9),
    "lsh.tables": (1, 64),
    "lsh.width": _POSITIVE,
    "lsh.margin": _FROM_0,
    "major.every": _FROM_0,
    "publish.min_drift": (0, 2),
    "publish.min_interval": _FROM_0,
    "publish.budget": _FROM_0,
    "engine.threads": _FROM_1,
    "user_vectors.items": (1, 200),
    "user_vectors.interests": (1, 100),
    "user_vectors.half_life": _POSITIVE,
    "user_vectors.idle": _POSITIVE,
    "round.max_events": _FROM_1,
    "round.max_seconds": _FROM_0,
    "commit.seconds": _POSITIVE,
    "commit.rounds": _FROM_0,
    "commit.max_records": (4000, 1_000_000),
    "checkpoint.seconds": _POSITIVE,
    "metrics.port": (0, 65535),
}

MOST_CENTROID_BYTES = MOST_USER_BYTES = 900_000
"""Brokers take records of a million bytes by default."""
NUMBER_BYTES, ENTRY_BYTES = 10, 6 * MAX_ID_BYTES + 128
"""What an entry of a vector takes in JSON at most, as "-0.123456,", and an item of a history: its
id, each byte of it escaped, weight and time."""
LEAST_RECORDS_OF_USERS = 2 * MAX_PARTS
"""A record of clicks is not divided, and each may be of another user."""

_FOR_US = "exactly-once needs a value that Walkstream sets itself: take the line out"
_FOR_NAME = "follows from app.name and app.instance: set those, and take the line out"
_OWNED = {
    "auto.offset.reset": "where the first start begins is start.position: set that instead",
    "group.id": "is app.name: set that instead",
    "group.instance.id": _FOR_NAME,
    "transactional.id": _FOR_NAME,
    "delivery.report.only.error": _FOR_US,
    "enable.auto.commit": _FOR_US,
    "enable.auto.offset.store": _FOR_US,
    "enable.idempotence": _FOR_US,
    "enable.partition.eof": _FOR_US,
    "isolation.level": _FOR_US,
    "partition.assignment.strategy": _FOR_US,
    "partitioner": _FOR_US,
    "topic.blacklist": "would hide topics that Walkstream reads: take the line out",
}
"""Properties of [kafka] that are not the user's to set, and why."""
_CODE = re.compile(r"\w+_cb|on_\w+|logger|opaque|default\.topic\.config")
"""Those that the client library takes no text for."""

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

_SPECIAL_PATHS = {AT_KEY: ("user_id", "item_id"), AT_TIMESTAMP: ("ts",)}
"""What stands for a part of the record around the value, and the fields that may be there."""


def problems(config: "Config") -> Iterator[tuple[str, str]]:
    """Keys whose values would break a worker later, each with what it must be."""
    for key, (low, high) in _RANGES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if not low <= value <= high:
            lower = "more than 0" if low == _POSITIVE[0] else f"at least {low:g}"
            yield key, f"must be {lower}" + ("" if high == _ANY else f" and at most {high:g}")
    degree, dim = config.graph.max_degree, config.model.dim
    if not 4 <= degree <= 1024 or degree & (degree - 1):
        yield "graph.max_degree", f"is {degree}, and must be a power of two from 4 to 1024"
    if not 16 <= dim <= 1024 or dim % 16:
        yield "model.dim", f"is {dim}, and must be a multiple of 16 from 16 to 1024"
    most_bits = 64 if config.lsh.family == "sign" else 16
    follows = config.lsh.bits == 0 and config.lsh.family == "sign"
    if not follows and not 1 <= config.lsh.bits <= most_bits:
        problem = f"must be from 1 to {most_bits} for the {config.lsh.family} family"
        if config.lsh.family == "sign":
            problem += ", or 0 for as many as the catalogue asks for"
        yield "lsh.bits", problem
    yield from _size_problems(config)
    yield from _cluster_problems(config)
    yield from _user_problems(config)
    try:
        quiet.parsed(config.major.window)
    except ValueError as error:
        yield "major.window", str(error)
    shares = sum(getattr(config.negatives, kind) for kind in NEGATIVES)
    if config.negatives.kind == "mix" and shares == 0.0:
        yield "negatives.kind", f"is a mix: give shares, of {', '.join(NEGATIVES)}"
    if config.negatives.kind != "mix" and shares > 0.0:
        yield "negatives.kind", f"is {config.negatives.kind}, and shares are for a mix: set mix"
    if config.publish.min_drift == 0:
        for name in ("min_interval", "budget"):
            if getattr(config.publish, name):
                yield f"publish.{name}", "must be 0 where publish.min_drift is: all leaves then"
    if config.topics.min_insync_replicas > config.topics.replication:
        yield "topics.min_insync_replicas", "must be at most topics.replication"
    for event_type, weight in config.events.weights.items():
        if weight != 0 and not 1e-6 <= weight <= 1e6:
            key, bounds = f"events.weights.{event_type}", "from 1e-6 to 1e6, or 0 to leave it out"
            yield key, f"is {weight}, and must be {bounds}"
    if config.events.impressions in (DEFAULT_TYPE, "*"):
        shown = config.events.impressions
        yield "events.impressions", f"must not be {shown}: that is what clicks without a type are"
    alarm = config.dlq.alarm_ratio
    if 0 < config.dlq.stop_ratio < alarm:
        # The worker would stop without an alert before.
        yield "dlq.stop_ratio", f"must be 0 (never) or at least dlq.alarm_ratio, which is {alarm:g}"
    for key in ("bootstrap.servers", "metadata.broker.list"):
        if has_credentials(config.kafka.get(key)):
            problem = "has a user or a password in it, which brokers are not told so: set "
            yield f"kafka.{key}", f"{problem}kafka.sasl.username and kafka.sasl.password instead"
    for key in config.kafka:
        if key in _OWNED:
            yield f"kafka.{key}", _OWNED[key]
        elif _CODE.fullmatch(key):
            yield f"kafka.{key}", "takes a function, which no text can be: take the line out"
    yield from _click_problems(config)
    yield from _name_problems(config)
    protocol = config.kafka.get("group.protocol", "classic")
    if protocol not in ("classic", "consumer"):
        yield "kafka.group.protocol", f"{protocol!r} is neither classic nor consumer"


def _size_problems(config: "Config") -> Iterator[tuple[str, str]]:
    tiers, dim = config.size.tiers, config.model.dim
    if not tiers:
        return
    key, clicks, dims = "size.tiers", [each for each, _ in tiers], [each for _, each in tiers]
    if clicks[0] != 1 or any(later <= before for before, later in pairwise(clicks)):
        yield key, f"begin at clicks {clicks}, and must begin at 1 and ascend"
    if any(later <= before for before, later in pairwise([0, *dims])) or any(d % 16 for d in dims):
        yield key, f"have dims {dims}, and must have multiples of 16 that ascend"
    elif dims[-1] != dim:
        yield key, f"end with {dims[-1]} dims, and the last must have all {dim} of model.dim"


def _cluster_problems(config: "Config") -> Iterator[tuple[str, str]]:
    clusters, dim = config.clusters, config.model.dim
    by_rules = clusters.kind == "rules"
    if clusters.min_items < clusters.count and not by_rules:
        yield "clusters.min_items", "must be at least clusters.count"
    are_matched = clusters.update == "anew" and not by_rules
    room = MOST_CENTROID_BYTES - (RULE_BYTES if by_rules else 0)
    for name, counts in (("count", not by_rules), ("most", by_rules or clusters.spawn > 0)):
        if counts and 4 * dim * getattr(clusters, name) > room:
            most = room // (4 * dim)
            problem = f"must be at most {most} with model.dim {dim}: one record holds all"
            yield f"clusters.{name}", problem
        elif counts and are_matched and getattr(clusters, name) > MOST_MATCHED:
            problem = f"must be at most {MOST_MATCHED} where clusters.update is anew: a commit"
            yield f"clusters.{name}", f"{problem} matches all old clusters with all new ones"
    if by_rules and config.model.attribute_slots == 0:
        yield (
            "clusters.kind",
            "is rules, which go by the attributes that the model knows of an item: set "
            "model.attribute_slots above 0",
        )
    if config.publish.form == "residual" and (by_rules or clusters.spawn > 0):
        yield (
            "publish.form",
            "residual needs centroids that stand for an epoch: clusters.kind vectors, and "
            "clusters.spawn 0",
        )
    if by_rules and clusters.spawn > 0:
        yield "clusters.spawn", "must be 0 where clusters.kind is rules: no item founds a rule"
    if clusters.spawn > 0 and clusters.most < clusters.count:
        yield "clusters.most", "must be at least clusters.count"
    if clusters.spawn > 0 and clusters.spawn + clusters.margin >= 1:
        yield (
            "clusters.spawn",
            "must be less than 1 - clusters.margin, or what founds a cluster would stay in its old",
        )


def _user_problems(config: "Config") -> Iterator[tuple[str, str]]:
    settings, dim = config.user_vectors, config.model.dim
    if not config.has_users:
        return
    room = MOST_USER_BYTES - ENTRY_BYTES * settings.items
    a_vector = 2 * NUMBER_BYTES * dim + ENTRY_BYTES
    if settings.kind == "interests" and settings.interests * a_vector > room:
        problem = f"must be at most {room // a_vector} with model.dim {dim} and user_vectors.items "
        yield "user_vectors.interests", f"{problem}{settings.items}: one record holds all of a user"
    if config.commit.max_records < LEAST_RECORDS_OF_USERS:
        yield (
            "commit.max_records",
            f"must be at least {LEAST_RECORDS_OF_USERS} with user_vectors.kind: a record of the "
            f"log may have {MAX_PARTS} clicks, each of another user, and leaves with one commit",
        )


def _click_problems(config: "Config") -> Iterator[tuple[str, str]]:
    for name, path in config.clicks.fields.items():
        key = f"clicks.fields.{name}"
        if not path:
            if name in ("user_id", "item_id", "ts"):
                yield key, "must not be empty: no click is without it"
        elif path in _SPECIAL_PATHS:
            if name not in _SPECIAL_PATHS[path]:
                yield key, f"cannot be {path}, which is for {' and '.join(_SPECIAL_PATHS[path])}"
        elif path.startswith("@"):
            yield key, f"is {path!r}; with @ there are only {' and '.join(_SPECIAL_PATHS)}"
        else:
            yield from _path_problems(key, path, config.clicks.fields["item_id"])
    if config.clicks.format in ("avro", "json-schema") and not config.registry.get("url"):
        yield "registry.url", f"is needed for clicks.format = {config.clicks.format}"


def _path_problems(key: str, path: str, item_path: str) -> Iterator[tuple[str, str]]:
    arrays = {one.arrays for one in alternatives(item_path)}
    for one in alternatives(path):
        names = [name for step in one.arrays for name in step.split(".")]
        names += one.inside.split(".") if one.inside or not one.arrays else []
        if not all(names) or any(name.startswith("@") for name in names[:1]):
            yield (
                key,
                f"is {path!r}, and must be a name, or names with a dot between: product.sku; [] "
                "stands behind the name of an array, and ' | ' between several of them",
            )
        elif not any(one.arrays == there[: len(one.arrays)] for there in arrays):
            array = ".".join(f"{step}[]" for step in one.arrays)
            yield key, f"is in {array}, and clicks.fields.item_id is not: each element is one click"


def _name_problems(config: "Config") -> Iterator[tuple[str, str]]:
    for key in ("app.name", "app.instance", "state.dir"):
        section, name = key.split(".")
        if not getattr(getattr(config, section), name):
            yield key, "must not be empty"
    if "/" in config.app.instance:
        yield "app.instance", "must have no slash"
    owners: dict[str, str] = {}
    for name, topic in vars(config.topics).items():
        if not isinstance(topic, str) or (name == "user_vectors" and not config.has_users):
            continue
        if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            yield f"topics.{name}", f"{topic!r} is no topic name (1 to 249 of A-Z a-z 0-9 . _ -)"
        if owners.setdefault(topic, name) != name:
            yield f"topics.{name}", f"is the topic of topics.{owners[topic]} too"
