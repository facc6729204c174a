"""Rows of Parquet files as the texts that a table has. Needs pyarrow, the extra `parquet`."""

import importlib.util
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from streamer.errors import ConfigError, WalkstreamError
from streamer.files.lines import STDIN, name_of

ROWS = 5000
"""Rows of a batch."""


class Parquet:
    """One file; `share` is how much of it was read."""

    def __init__(self, path: Path) -> None:
        if path == STDIN or not path.is_file():
            raise ConfigError(
                f"{name_of(path)}: is Parquet, which is read from its end; name a file on disk"
            )
        if importlib.util.find_spec("pyarrow") is None:
            raise ConfigError(
                f'{path}: is Parquet, which needs pyarrow: run `pip install ".[parquet]"` in the '
                "folder of Walkstream, or write the file as CSV"
            )
        import pyarrow
        import pyarrow.parquet

        self._path, self._damage, self.share = path, pyarrow.ArrowException, 0.0
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise WalkstreamError(f"{path}: damaged Parquet data ({error})") from error
        schema = self._file.schema_arrow
        self.columns: list[str] = list(schema.names)
        self.temporal = {field.name for field in schema if pyarrow.types.is_temporal(field.type)}
        """Columns of times, which need no unit."""

    def batches(self) -> Iterator[list[list[str]]]:
        """The rows: null is empty, a time is ISO 8601 in UTC, a list is written as a|b."""
        done, rows = 0, max(1, self._file.metadata.num_rows)
        try:
            for batch in self._file.iter_batches(ROWS):
                columns = [_texts(column) for column in batch]
                done += batch.num_rows
                self.share = done / rows
                yield [list(row) for row in zip(*columns, strict=True)]
        except (self._damage, OSError, ValueError) as error:
            raise WalkstreamError(
                f"{self._path}: damaged Parquet data ({error}). What came before it was read"
            ) from error


def _texts(column: Any) -> list[str]:
    import pyarrow

    if pyarrow.types.is_timestamp(column.type):  # Python's times have no nanoseconds
        column = column.cast(pyarrow.timestamp("ms", column.type.tz), safe=False)
    return [_text(value) for value in column.to_pylist()]


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN, which pandas writes for null
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list):
        return "|".join(_text(one) for one in value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
