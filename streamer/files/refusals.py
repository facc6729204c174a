"""Lines that cannot be used: how many of each kind, and the first of each to look at."""

from collections.abc import Iterator

from streamer.decode.events import Bad
from streamer.errors import ConfigError
from streamer.files.lines import Record, text_flaw
from streamer.files.times import Flaw

FEW = 20
"""Fewer lines than this may all be bad."""
SHOWN_BYTES = 120

WHERE_TO_LOOK = (
    "Look at --columns and --delimiter for tables, and at --time. JSON must have the names "
    "user_id, item_id, ts: `jq -c '{user_id: .visitor, item_id: .sku, ts: .at}'` makes such lines"
)


class Refusals:
    """What was refused so far."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, what: str, flaw: Flaw, record: Record) -> None:
        """Count a line under `what` and the kind of its flaw."""
        kind = what, flaw.kind
        count, first = self._kinds.get(kind, (0, ""))
        if not count:
            shown = record.value[:SHOWN_BYTES].decode(errors="backslashreplace")
            cut = " ..." if len(record.value) > SHOWN_BYTES else ""
            first = f"{record.where}: {flaw.message}\n      {shown}{cut}"
        self._kinds[kind] = count + 1, first

    def decoded(self, bad: Bad, record: Record) -> Bad:
        """Count what a worker would refuse. Returns it with what is known of the line."""
        flaw = record.flaw or text_flaw(record.value) or Flaw("", bad.message)
        self.add(bad.reason.value, flaw, record)
        value = record.value if record.flaw else bad.value
        return bad._replace(message=f"{flaw.message} ({record.where})", value=value)

    @property
    def total(self) -> int:
        return sum(count for count, _ in self._kinds.values())

    def are_all(self, what: str) -> bool:
        """Whether nothing else was refused."""
        return all(other == what for other, _ in self._kinds)

    @property
    def where_to_look(self) -> str:
        """What to do if nothing else was there."""
        is_text = bool(self._kinds) and all(kind == "text" for _, kind in self._kinds)
        return "Look at the encoding of the file" if is_text else WHERE_TO_LOOK

    def lines(self) -> Iterator[str]:
        """For each kind, the most frequent first, its count and the first line of it."""
        for (what, _), (count, first) in sorted(self._kinds.items(), key=lambda kind: -kind[1][0]):
            yield f"  {count:,} {what}{', the first in ' if count > 1 else ' in '}{first}"


def refuse_unreadable(batch: list[Record], refused: Refusals) -> None:
    """ConfigError if no line of `batch`, the first of a file, could be made into a click.

    `refused` is what was refused of it.
    """
    if len(batch) < FEW or any(r.key is not None or r.time is not None for r in batch):
        return
    examples = "\n".join(refused.lines())
    is_catalogue = all(b'"item_id"' in r.value and b'"user_id"' not in r.value for r in batch)
    raise ConfigError(
        f"none of the first {len(batch):,} lines could be read:\n{examples}\n"
        + ("Is it a catalogue? Then add --items" if is_catalogue else refused.where_to_look)
    )
