"""The clicks of files as a worker would read them: for `replay`, `evaluate` and a dry run."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

from streamer.decode.events import Bad, Decoded
from streamer.decode.guarded import GuardedDecoder
from streamer.errors import ConfigError
from streamer.files.left_out import LeftOutTypes
from streamer.files.lines import Record
from streamer.files.order import Order
from streamer.files.readers import Source, read_clicks
from streamer.files.refusals import Refusals
from streamer.files.sorting import open_clicks
from streamer.settings.sections import Config
from streamer.terminal import fitted

NO_TIMESTAMP = -1


class ClickLog:
    """One pass over the clicks of a source, with all that is to be told about them.

    Errors are those of `streamer.files.readers`.
    """

    def __init__(self, config: Config, source: Source) -> None:
        # JSON lines are as in the topic that [clicks] describes, tables as the command line says.
        foreign = config.clicks != config.clicks.in_own_form and source.is_json
        if foreign and source.time != "ms":
            raise ConfigError(
                f"--time {source.time} is for tables, and these are JSON lines as section [clicks] "
                "describes them: --set clicks.time_unit=UNIT says in which unit their times are"
            )
        clicks = config.clicks if foreign else config.clicks.in_own_form
        self._decode = GuardedDecoder(clicks, config.events, config.registry)
        self._source = replace(source, foreign=foreign)
        self.reader = open_clicks(self._source, self._times if foreign else None)
        self.order = Order(config.session.gap, source.time != "order")
        self.refused = Refusals()
        self.left_out = LeftOutTypes(clicks, config.events)

    def count(self) -> int:
        """How many records there are, by reading all of them once more."""
        return sum(map(len, read_clicks(self._source)))

    def chunks(self, size: int) -> Iterator[tuple[list[Record], bool]]:
        """The records, `size` at a time, and whether they are the last; empty while sorting."""
        held: list[Record] = []
        for batch in self.reader:
            held += batch
            if not batch:
                yield [], False
            while len(held) > size:
                yield held[:size], False
                held = held[size:]
        yield held, True

    def decoded(
        self, records: Sequence[Record], timestamp: int = NO_TIMESTAMP
    ) -> tuple[Decoded, list[Bad]]:
        """The clicks of records, counted; and what is bad, with what is known of its line."""
        decoded = self._decode(
            [record.key for record in records],
            # What a line says is not taken where something is wrong with it.
            [b"" if record.flaw else record.value for record in records],
            [timestamp] * len(records),
        )
        self.order.add(decoded.clicks.times)
        self.left_out.add(records, decoded)
        return decoded, [self.refused.decoded(bad, records[bad.record]) for bad in decoded.bad]

    def notes(self) -> Iterator[str]:
        """What is odd in what was read so far."""
        return chain(self.reader.findings.lines(), self.order.lines())

    def _times(self, records: list[Record]) -> list[int | None]:
        """Of each record the time of its first click."""
        decoded = self._decode.decode(
            [record.key for record in records],
            [record.value for record in records],
            [NO_TIMESTAMP] * len(records),
        )
        times: list[int | None] = [None] * len(records)
        found = zip(decoded.records.tolist(), decoded.clicks.times.tolist(), strict=True)
        for number, time in reversed(list(found)):
            times[number] = time
        return times


def tell(notes: Iterator[str]) -> None:
    """Print notes to standard error, where they are in the way of no JSON."""
    for note in notes:
        print(fitted(f"note: {note}", sys.stderr), file=sys.stderr)
