"""Which field of a sampled click means what: guesses from names first and from values second.

Whether they hold is for the decoder to say.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from streamer.decode.fields import AT_KEY, AT_TIMESTAMP
from streamer.decode.paths import EACH, OR
from streamer.inspect.shapes import Field
from streamer.inspect.times import TimeUnit, time_unit, unreadable

USERS = (
    *("user", "visitor", "customer", "client", "member", "account", "shopper", "buyer", "person"),
    *("profile", "uid", "session", "device", "cookie", "anonymous", "u"),
)
ITEMS = (
    *("item", "product", "sku", "article", "content", "asin", "isbn", "ean", "gtin", "movie"),
    *("film", "video", "track", "song", "book", "recipe", "listing", "offer", "stock", "post"),
    *("page", "object", "target", "pid", "iid", "i"),
)
TIMES = (
    *("ts", "timestamp", "eventtime", "time", "datetime", "occurred", "created", "date", "when"),
    *("at", "t"),
)
TYPES = ("eventtype", "type", "event", "action", "activity", "interaction", "verb", "kind", "name")
EVENT_IDS = ("event", "eventid", "message", "msg", "uuid", "guid", "request", "id")
ID_ENDINGS = ("", "id", "uid", "uuid", "key", "code", "no", "number", "sku")
TIME_ENDINGS = ("", "at", "on", "ms", "time", "timestamp", "ts", "utc")
TYPE_ENDINGS = ("", "type", "name", "kind")
DESCRIBES = frozenset(
    ("name", "title", "type", "price", "category", "count", "amount", "quantity", "agent", "email")
)
"""Words that make a name one of a property: item_name is no item."""

MOST_TYPES = 50
"""A field with more values than this does not hold event types."""
SHORTEST_VECTOR = 8
MANY = 50
"""From so many values on it says something that all of them differ, or none."""

BY_NAME = "its name and its values"
CONFIGURED = "as configured"

IDS = ("string", "integer", "uuid")
"""Types that an id may have."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


@dataclass(frozen=True)
class Guess:
    """Where the fields of a click are; those that were not found are left out."""

    paths: dict[str, str]
    """Path, `@key` or `@timestamp` of each field, as in `clicks.fields`."""
    time_unit: TimeUnit
    why: dict[str, str]
    """What speaks for each path."""
    unread: dict[str, str]
    """Where none is the time: fields that look like it, each with why it cannot be read."""


def guess(
    found: Mapping[str, Field],
    clicks: int,
    keys: Sequence[bytes | None],
    timestamps: Sequence[int],
    given: Mapping[str, str],
    now_ms: int,
) -> Guess:
    """Which path is which field of a click, from names first and values second.

    `found` are the fields of so many `clicks`; `keys` and `timestamps` (ms, -1 for none) are those
    of their records. `given` are paths that are settled. `now_ms` stands in for missing timestamps.
    """
    sent = [ts for ts in timestamps if ts > 0]
    reference = statistics.median(sent) if sent else now_ms
    texts = [key.decode(errors="replace") for key in keys if key]
    units = {path: unit for path, f in found.items() if (unit := time_unit(f.values, reference))}
    paths, why = dict(given), dict.fromkeys(given, CONFIGURED)

    def settle(role: str, path: str, reason: str) -> None:
        if role not in paths and path not in paths.values():
            paths[role], why[role] = path, reason

    scored = sorted(
        (
            (score, role, path)
            for path, seen in found.items()
            for role, score in _scores(seen, clicks, path in units, set(texts)).items()
        ),
        key=lambda entry: -entry[0],
    )
    for score, role, path in scored:
        # An array leads to items; what else is in it belongs to them.
        if not found[path].array or (role == "item_id" and score > 2):
            settle(role, path, BY_NAME if score > 2 else "its values")
    array = found[paths["item_id"]].array if paths.get("item_id") in found else ""
    for score, role, path in scored:
        if array and found[path].array == array and role in ("user_id", "ts", "event_type"):
            settle(role, path, BY_NAME if score > 2 else "its values")
    left = [
        path
        for path, seen in found.items()
        if path not in (*paths.values(), *units) and not seen.array and _repeats(seen)
    ]
    missing = [role for role in ("user_id", "item_id") if role not in paths]
    if len(left) == len(missing) == 1 and not _repeat(texts):
        settle(missing[0], left[0], "no other field has ids that repeat")
    elif missing and _repeat(texts):
        other = found.get(paths.get("user_id", ""))
        if missing[0] == "user_id" or not (other and set(texts) & set(map(str, other.values))):
            settle(missing[0], AT_KEY, "no field looks like it, and the keys of the records repeat")
    unread = {} if "ts" in paths else _unread(found, clicks, reference)
    if sent and found and not unread:
        settle("ts", AT_TIMESTAMP, "no field looks like a time")
    unit = units.get(paths.get("ts", ""), "ms")
    item = None if "item_id" in given else found.get(paths.get("item_id", ""))
    if item and (place := _other_place(found, clicks, item)):
        paths["item_id"] = OR.join(sorted((item.path, place), key=_is_single))
        why["item_id"] += ", in events of one item and of many"
    return Guess(paths, unit, why, unread)


def _unread(found: Mapping[str, Field], clicks: int, reference: float) -> dict[str, str]:
    """Fields that are named after times and look like some, each with why it cannot be read."""
    out = {}
    for path, seen in found.items():
        is_named = named(path, TIMES, TIME_ENDINGS) and not _of_thing(path) and not seen.array
        usual = is_named and seen.present >= clicks / 2
        if usual and (reason := unreadable(seen.values, reference)):
            out[path] = reason
    return out


def _other_place(found: Mapping[str, Field], clicks: int, item: Field) -> str | None:
    """Where the item is in most clicks that lack it: by the same name, but in an array, or in none.

    A click that has both is about one and lists the other, so then they are not the same.
    """
    lacking = set(range(clicks)) - set(item.where)
    for path, seen in found.items():
        if bool(seen.array) != bool(item.array) and words(path) == words(item.path):
            where = set(seen.where)
            if where <= lacking and len(where) > len(lacking) / 2:
                return path
    return None


def _is_single(path: str) -> bool:
    return EACH not in path


def _number(value: object) -> float | None:
    """A finite number of a size that can be reckoned with."""
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        return None
    return float(value) if -1e30 < value < 1e30 else None


def _scores(seen: Field, clicks: int, is_time: bool, keys: set[str]) -> dict[str, float]:
    """How well a field would do as each field of a click; above 2 if its name speaks for it."""
    n, distinct, path = len(seen.values), seen.distinct, seen.path
    absent = 6 * (1 - seen.present / clicks) + bool(seen.array)
    if path.endswith(EACH):
        path = path.removesuffix(EACH).removesuffix("s")  # products[] is a product each
    of_thing = 6 * _of_thing(path)
    if is_time:
        score = 1 + named(path, TIMES, TIME_ENDINGS) - absent - of_thing
        return {"ts": score} if score > 0 else {}
    if seen.all_are("integer", "float"):
        positive = sum((_number(value) or 0) > 0 for value in seen.values) >= 0.95 * n
        if words(path)[-1:] == ["weight"] and positive and not of_thing:
            return {"weight": 10}
    if not seen.all_are(*IDS):
        return {}
    user, item = named(path, USERS, ID_ENDINGS), named(path, ITEMS, ID_ENDINGS)
    event, type_ = named(path, EVENT_IDS, ID_ENDINGS), named(path, TYPES, TYPE_ENDINGS)
    alike, unique = n >= MANY and distinct == 1, n >= MANY and distinct > 0.98 * n
    scores: dict[str, float] = {}
    if not alike:
        if user:
            scores["user_id"] = user - 3 * unique - absent
        elif set(map(str, seen.values)) <= keys and not unique and not item:
            scores["user_id"] = 1.5 - absent
        if item:
            scores["item_id"] = item - 3 * unique - absent
        if event and not user and not item and distinct > 0.9 * n:
            scores["event_id"] = event
    if seen.all_are("string") and distinct <= MOST_TYPES and not unique and not user:
        known = sum(bool(type_weight(value)) for value in seen.values) / n
        # A bare name is that of anything; event.name is not.
        if known > 0.5 or named(path, [stem for stem in TYPES if stem != "name"], TYPE_ENDINGS):
            scores["event_type"] = 1 + type_ + 4 * known - of_thing
    return {role: score for role, score in scores.items() if score > 0}


def _of_thing(path: str) -> bool:
    """product.type is a kind of product, and user.since no time of a click."""
    return bool(named(path.rpartition(".")[0], (*USERS, *ITEMS), ID_ENDINGS))


def words(path: str) -> list[str]:
    """The words of the last name of a path: "product.skuCode" has sku and code."""
    return [word.lower() for word in _WORD.findall(path.rpartition(".")[2])]


def named(path: str, stems: Sequence[str], endings: Sequence[str]) -> float:
    """How much a path is named after one of the stems, the first most: 0 for not at all.

    Up to 10 for user_id and user.id, up to 5 for web_user.
    """
    last, parent = words(path), "".join(words(path.rpartition(".")[0]))
    joined = "".join(last)
    best = 0.0
    for rank, stem in enumerate(stems):
        if joined in {stem + ending for ending in endings} or joined == f"id{stem}":
            score = 10.0
        elif parent in (stem, f"{stem}s") and joined in endings[1:]:
            score = 9.5
        elif len(stem) > 2 and stem in last and not DESCRIBES & set(last) - {stem}:
            score = 5.0
        else:
            continue
        best = max(best, score - 0.1 * rank - 0.01 * path.count("."))
    return best


def vectors(found: Mapping[str, Field]) -> list[str]:
    """Paths of arrays of many numbers, as embeddings are."""

    def is_vector(value: object) -> bool:
        return (
            isinstance(value, list)
            and len(value) >= SHORTEST_VECTOR
            and all(_number(entry) is not None for entry in value)
        )

    return [p for p, f in found.items() if f.values and all(map(is_vector, f.values))]


def _repeats(seen: Field) -> bool:
    return seen.all_are(*IDS) and _repeat(list(map(str, seen.values)))


def _repeat(texts: Sequence[str]) -> bool:
    """Whether these may be ids of users or items: several, and some more than once."""
    return 1 < len(set(texts)) < len(texts)


# -- event types ---------------------------------------------------------------------------------

AGAINST = ("remove", "delete", "refund", "return", "cancel", "dislike", "unlike", "hide", "report")
"""Parts of the names of events that speak against an item."""

_SHOWN = ("impression", "itemlist", "productlist", "promotion")
"""Parts of the names of events that show items which nobody asked for."""

_FOR = (
    (3.0, ("purchase", "buy", "bought", "order", "transaction", "sale", "sold", "payment")),
    (2.0, ("cart", "basket", "checkout", "wishlist", "favo", "bookmark", "like", "share")),
    (
        1.0,
        ("view", "click", "visit", "open", "watch", "play", "listen", "read", "detail", "select"),
    ),
)


def is_shown(event_type: object) -> bool:
    """Whether an event only shows items, as a list does; a click in the list is a click.

    >>> [is_shown(name) for name in ("Product List Viewed", "select_item", "list_click")]
    [True, False, False]
    """
    parts = [word.lower() for word in _WORD.findall(str(event_type))]
    chosen = {"click", "clicked", "select", "selected"} & set(parts)
    return not chosen and any(part in "".join(parts) for part in _SHOWN)


def type_weight(event_type: object) -> float | None:
    """The usual weight of an event type: 0 if it says nothing for the item, None if it is unknown.

    >>> [type_weight(name) for name in ("view_item_list", "Product Added", "Product Viewed")]
    [0.0, 2.0, 1.0]
    """
    names = [word.lower() for word in _WORD.findall(str(event_type))]
    joined = "".join(names)
    if any(part in joined for part in AGAINST) or is_shown(event_type):
        return 0.0
    known = (weight for weight, parts in _FOR if any(part in joined for part in parts))
    return next(known, 2.0 if {"add", "added"} & set(names) else None)
