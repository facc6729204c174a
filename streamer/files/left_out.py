"""Types of events in a log whose clicks do not count: which, how many, and what to do."""

from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from streamer.decode.events import Decoded, Reason
from streamer.decode.formats import short
from streamer.decode.paths import ABSENT, EACH, elements, find
from streamer.files.lines import Record
from streamer.settings.sections import ClickSettings, EventSettings

SHOWN = 8
"""Types that are named, the most frequent ones."""


class LeftOutTypes:
    """What was left out so far for its type. Records are JSON as `clicks` says."""

    def __init__(self, clicks: ClickSettings, events: EventSettings) -> None:
        paths = ClickSettings().fields | clicks.fields
        self._type, self._item = paths["event_type"], paths["item_id"]
        self._weights = events.all_weights
        self._counts = Counter[str]()

    def add(self, records: Sequence[Record], decoded: Decoded) -> None:
        """Count the types of a batch's clicks that `decoded` does not have for them."""
        if not decoded.unwanted and all(b.reason is not Reason.UNKNOWN_TYPE for b in decoded.bad):
            return
        kept = set(decoded.records.tolist())
        for number, record in enumerate(records):
            if number not in kept and not record.flaw:
                self._counts.update(
                    kind for kind in self._types(record.value) if not self._weight(kind)
                )

    def _weight(self, kind: str) -> float | None:
        return self._weights.get(kind, self._weights.get("*"))

    def _types(self, value: bytes) -> Iterator[str]:
        try:
            document = msgspec.json.decode(value)
            clicks = list(elements(document, self._item)) if EACH in self._item else []
            for click in clicks or [document]:
                kind = find(click, self._type) if self._type else ABSENT
                if isinstance(kind, str):
                    yield kind
        except (ValueError, AttributeError, TypeError):
            return  # no document of clicks: a dead letter for that

    def lines(self) -> Iterator[str]:
        """What was left out, and how to take it in."""
        unlisted = Counter({k: n for k, n in self._counts.items() if self._weight(k) is None})
        if unlisted:
            yield (
                f"event types that events.weights does not list: {_named(unlisted)}. Give each a "
                "weight, as in --set 'events.weights.TYPE=1', or all others one: "
                "--set 'events.weights.*=1'"
            )
        if weightless := self._counts - unlisted:
            yield (
                f"event types that weigh 0 in events.weights: {_named(weightless)}. To count them, "
                "give them a weight"
            )


def _named(counts: Counter[str]) -> str:
    named = ", ".join(f"{short(kind)} ({count:,})" for kind, count in counts.most_common(SHOWN))
    more = len(counts) - SHOWN
    return f"{named} and {more:,} more" if more > 0 else named
