"""The clicks of a log, in the rounds and commits in which `walkstream replay` takes them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from core.clicks import Clicks
from streamer.decode.events import Decoder
from streamer.files.lines import Record
from streamer.files.readers import Source, read_clicks
from streamer.files.replay import ROUNDS_PER_COMMIT
from streamer.settings.sections import ClickSettings, Config


@dataclass(frozen=True)
class Round:
    """What the engine takes in one step."""

    clicks: Clicks
    closes_commit: bool
    may_close: bool


class Log:
    """One pass over the clicks of a source. Errors are those of `streamer.files.readers`."""

    def __init__(self, config: Config, source: Source) -> None:
        self._config = config
        # JSON lines are as in the topic that [clicks] describes, tables as the command line says.
        foreign = config.clicks != ClickSettings() and source.is_json
        self._decode = Decoder(
            config.clicks if foreign else ClickSettings(), config.events, config.registry
        )
        self._source = replace(source, foreign=foreign)
        self.reader = read_clicks(self._source)
        self.records = 0
        """Taken so far."""
        self.left_out = 0
        """Those that were no good click, and those of types that weigh 0."""

    def count(self) -> int:
        """How many records there are, by reading all of them once more."""
        return sum(map(len, read_clicks(self._source)))

    def __iter__(self) -> Iterator[Round]:
        size = self._config.round.max_events
        per_commit = self._config.commit.rounds or ROUNDS_PER_COMMIT
        for number, (records, is_last) in enumerate(self._chunks(size), 1):
            decoded = self._decode([r.key for r in records], [r.value for r in records],
                                   [-1] * len(records))  # fmt: skip
            self.records += len(records)
            self.left_out += len(decoded.bad) + decoded.unwanted
            closes = is_last or number % per_commit == 0
            parts = decoded.clicks.parts(size)
            for at, clicks in enumerate(parts, 1):
                last = at == len(parts)
                yield Round(clicks, closes and last, last)

    def _chunks(self, size: int) -> Iterator[tuple[list[Record], bool]]:
        """The records in rounds, and whether a round is the last."""
        held: list[Record] = []
        for batch in self.reader:
            held += batch
            while len(held) > size:
                yield held[:size], False
                held = held[size:]
        yield held, True
