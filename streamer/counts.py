"""How much there is in a state folder, for commands that tell people."""

import struct
from collections import Counter

from streamer.state.records import is_item
from streamer.state.store import Store, bucket_prefix


def entries(store: Store, family: str) -> int:
    return sum(1 for _ in store.scan(family))


def rows(store: Store) -> tuple[int, int]:
    """Rows of items, and of attributes."""
    items = attributes = 0
    for key, _ in store.scan("rows"):
        if is_item(key):
            items += 1
        else:
            attributes += 1
    return items, attributes


def with_vector(store: Store) -> int:
    """Items that have a vector: each is in one bucket of the first table."""
    return sum(1 for _ in store.scan("postings", bytes(1)))


def cluster_sizes(store: Store) -> dict[int, int]:
    """How many items each cluster has that is not empty."""
    return dict(Counter(struct.unpack_from(">i", key)[0] for key, _ in store.scan("clusters")))


def bucket_sizes(store: Store) -> list[int]:
    """How many items each bucket has that is not empty, all tables together."""
    width = len(bucket_prefix(0, 0))
    return list(Counter(key[:width] for key, _ in store.scan("postings")).values())
