"""What is odd in files without making a line bad: told once for each kind, with a count."""

from collections.abc import Iterator


class Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, example: str) -> None:
        """Count one of a kind, which is a text with places for `count` and the first `example`."""
        count, first = self._kinds.get(kind, (0, example))
        self._kinds[kind] = count + 1, first

    def lines(self) -> Iterator[str]:
        for kind, (count, example) in self._kinds.items():
            yield kind.format(count=f"{count:,}", example=example)


HEADER = (
    "{example}: the first line looks like a header and was left out, as --columns names the columns"
)
SHORTENED_ID = (
    "ids that look shortened by a spreadsheet: {count}, the first {example}. Different ids "
    "became one. Export the column as text"
)
FLOAT_ID = (
    "ids that end in .0: {count}, as pandas writes whole numbers where some are missing, the first "
    "{example}: 1.0 and 1 are two ids. Write the column as integers or text"
)
