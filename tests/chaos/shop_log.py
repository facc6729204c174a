"""A shop's clicks and items with all that a producer may do to them."""

from itertools import islice
from typing import Any

import msgspec

from streamer.demo.shop import Shop
from tests.support import START_MS

BAD = (
    b"not json",
    b'{"user_id":"u","ts":1700000000000}',
    b'{"user_id":"u","item_id":"i","ts":"soon"}',
    b'{"user_id":"u","item_id":"","ts":1700000000000}',
    b'{"user_id":"u","item_id":"i","ts":1700000000000,"weight":-1}',
    b'{"user_id":"u","item_id":"i","ts":-5}',
    b'{"user_id":"u","item_id":"i","ts":1700000000000,"event_type":"?"}',
)
BAD_ITEMS = ((b"torn", b"not json"), (b"odd", b'{"item_id":"odd","attributes":7}'))

ROUND = 200
"""Records of a round by count, and clicks that are learned at a time."""
REPEATS_AFTER = 100
"""Records between one and its repetition: most rounds and commits have only one of the two."""


def log_of(clicks: int, seed: int, rate: float) -> list[tuple[bytes, bytes]]:
    """A shop's clicks as a producer sends them that does all that is allowed.

    Every 30th record carries three clicks of a user, and every second of those a line that is bad;
    every 40th record comes again later, with the same event ids; before every 500th is a bad one.
    """
    source = Shop(seed).clicks(START_MS, rate)
    good: list[tuple[bytes, bytes]] = []
    while clicks > 0:
        some = list(islice(source, 3 if len(good) % 30 == 0 else 1))
        clicks -= len(some)
        lines = [msgspec.json.encode(click | {"user_id": some[0]["user_id"]}) for click in some]
        if len(good) % 60 == 0:
            lines.insert(1, BAD[len(good) // 60 % len(BAD)])
        good.append((str(some[0]["user_id"]).encode(), b"\n".join(lines)))
    out = []
    for n, record in enumerate(good):
        if n % 500 == 250:
            out.append((b"k%d" % n, BAD[n // 500 % len(BAD)]))
        out.append(record)
        if n % 40 == 20 and n >= REPEATS_AFTER:
            out.append(good[n - REPEATS_AFTER])
    return out


def clicks_of(value: bytes) -> list[dict[str, Any]]:
    """The good clicks that a record of the log carries."""
    return [msgspec.json.decode(line) for line in value.split(b"\n") if line not in BAD]


def rounds_of(log: list[tuple[bytes, bytes]]) -> int:
    """How many rounds by count these records make; more clicks than a round has make another."""
    batches = [log[at : at + ROUND] for at in range(0, len(log), ROUND)]
    clicks = [sum(len(clicks_of(value)) for _, value in batch) for batch in batches]
    return sum(-(-max(1, n) // ROUND) for n in clicks)


def catalogue(seed: int) -> list[tuple[bytes, bytes | None]]:
    """A shop's items, and bad ones; two were retired, and will be clicked all the same."""
    items = [(i["item_id"].encode(), msgspec.json.encode(i)) for i in Shop(seed).items()]
    return [*items, *BAD_ITEMS, *((key, None) for key, _ in items[:2])]
