"""What a reader of committed records waits for: transactions that other producers left open."""

import logging
import time
from collections.abc import Mapping

from streamer.kafka.clients import Partition, label

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0
"""A transaction of a living producer ends sooner than this, as a rule."""


class OpenTransactions:
    """Says once of each partition that an open transaction holds back what is to be read."""

    def __init__(self) -> None:
        self.ends: dict[Partition, int] = {}
        """Where what can be read ended, the last time that it did."""
        self._since: dict[Partition, float] = {}
        self._announced: set[Partition] = set()

    def reached(self, partition: Partition, offset: int) -> None:
        """All was read that can be read."""
        if self.ends.get(partition) != offset:
            self.ends[partition] = offset
            self._since[partition] = time.monotonic()

    def announce(self, at: Mapping[Partition, int], until: Mapping[Partition, int]) -> None:
        """Log once what a reader waits for: it is `at` these offsets, and wants `until` those."""
        now = time.monotonic()
        for partition, offset in at.items():
            if (
                self.ends.get(partition) == offset < until[partition]
                and partition not in self._announced
                and now - self._since[partition] > TELL_SECONDS
            ):
                self._announced.add(partition)
                log.warning(
                    "%s: waiting for a producer's open transaction to end: records from offset "
                    "%d to %d cannot be read before. The broker ends it when its producer's "
                    "transaction.timeout.ms is over, which the broker's transaction.max.timeout.ms "
                    "bounds (15 min unless it was changed); kafka-transactions.sh find-hanging "
                    "names it",
                    label(partition), offset, until[partition] - 1,
                )  # fmt: skip
