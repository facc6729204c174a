"""A decoder of clicks that refuses those dated far ahead of the clicks around them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.decode.ahead import Guard, Window
from streamer.decode.events import Decoded, Decoder
from streamer.settings.sections import ClickSettings, EventSettings, KafkaValue


class GuardedDecoder:
    """Takes the records of a log in their order, and remembers its partitions (`decode.ahead`)."""

    def __init__(
        self,
        clicks: ClickSettings,
        events: EventSettings,
        registry: Mapping[str, KafkaValue] | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.decode = Decoder(clicks, events, registry, beat)
        """Reads single records, of which nobody knows the neighbours."""
        self._guard = Guard(int(clicks.max_ahead))
        self.refused: list[int] = []
        """Records of the last batch that had clicks too far ahead."""

    def __call__(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        partitions: NDArray[np.int64] | None = None,
    ) -> Decoded:
        """As `Decoder` does; all records are of one partition where `partitions` are not given."""
        decoded = self.decode(keys, values, timestamps)
        if partitions is None:
            partitions = np.zeros(len(values), np.int64)
        bounds = self._guard.refused(decoded.clicks.times, decoded.records, partitions)
        self.refused = list(bounds)
        if not bounds:
            return decoded
        return self.decode.bounded(decoded, bounds, keys, values, timestamps)

    @property
    def windows(self) -> Mapping[int, Window]:
        """What is remembered, by partition."""
        return dict(self._guard.windows)

    def remember(self, windows: Mapping[int, Window]) -> None:
        """Go on from there in these partitions."""
        self._guard.windows.update(windows)
