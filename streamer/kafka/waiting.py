"""What a reader of committed records waits for: transactions that other producers left open."""

import logging
import math
import time
from collections.abc import Mapping

from streamer.kafka.clients import Partition, label

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0
"""A transaction of a living producer ends sooner than this, as a rule."""


class OpenTransactions:
    """Says once of each that an open transaction holds back what is to be read."""

    def __init__(self) -> None:
        self._since: dict[Partition, tuple[int, float]] = {}
        """Where each partition that waits is held back, and since when; for ever, once told."""

    def announce(
        self, at: Mapping[Partition, int], ends: Mapping[Partition, int],
        until: Mapping[Partition, int],
    ) -> None:  # fmt: skip
        """Log once what a reader waits for: it is `at` these offsets, and wants `until` those.

        `ends` is where what can be read ended, the last time that the reader was told so.
        """
        now = time.monotonic()
        for partition, offset in at.items():
            end = ends.get(partition, -1)
            if not offset <= end < until[partition]:
                self._since.pop(partition, None)
                continue
            held, since = self._since.get(partition, (-1, now))
            if held != end:
                self._since[partition] = end, now
            elif now - since > TELL_SECONDS:
                self._since[partition] = end, math.inf
                log.warning(
                    "%s: waiting for a producer's open transaction to end: what is at offsets %d "
                    "to %d cannot be read before. The broker ends it when its producer's "
                    "transaction.timeout.ms is over, at most transaction.max.timeout.ms of the "
                    "broker (15 min unless it was changed). kafka-transactions.sh find-hanging "
                    "names it",
                    label(partition), end, until[partition] - 1,
                )  # fmt: skip
