"""Logging to standard error, as text for people or as JSON lines for collectors."""

import logging
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from streamer.errors import WalkstreamError
from streamer.settings.sections import LogSettings
from streamer.terminal import fitted, printable

context: dict[str, str | int] = {}
"""What every JSON line carries. A worker keeps its name, round and commit in it."""

_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def setup(settings: LogSettings) -> None:
    """Sends the records of every logger to standard error; an earlier set-up is replaced."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if settings.format == "json" else _TextFormatter())
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    # At INFO it tells how it reads the texts of an axis.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)


def end(error: Exception) -> int:
    """Say on standard error why the process ends, and return the code that it exits with.

    Plain text, unless `setup` was told to print JSON: then it is a line like the others.
    """
    if isinstance(error, WalkstreamError):
        reason, code, unexpected = str(error), error.exit_code, None
    elif isinstance(error, OSError) and error.strerror:
        # What the system refuses is for the operator to mend, and no line of ours tells how.
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        reason, code, unexpected = ": ".join([*names, error.strerror]), 1, None
    else:
        reason, code, unexpected = f"{type(error).__name__}: {error}", 1, error
    if any(isinstance(h.formatter, _JsonFormatter) for h in logging.getLogger().handlers):
        logging.getLogger("walkstream").error(
            reason, exc_info=unexpected, extra={"exit_code": code}
        )
    elif unexpected is None:
        print(fitted(printable(f"walkstream: {reason}"), sys.stderr), file=sys.stderr)
    else:
        print(printable("".join(traceback.format_exception(unexpected))), end="", file=sys.stderr)
    return code


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line = {**line, **context, **_extra(record), **line}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        try:
            encoded = msgspec.json.encode(line, enc_hook=str)
        except Exception:
            # A dict with odd keys, a list within itself, half a surrogate pair: as Python shows it.
            encoded = msgspec.json.encode({k: _shown(v) for k, v in line.items()})
        return printable(encoded.decode())


def _shown(value: object) -> object:
    """The value if JSON has it for sure, else text that it has."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, bool | int):
        return value
    try:
        return ascii(value)
    except Exception as error:
        return f"a {type(value).__name__} that cannot be shown: {type(error).__name__}"


class _TextFormatter(logging.Formatter):
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - stdlib's name
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        # What goes on in a second line is indented, so that no text forges a line of the log.
        return (super().formatMessage(record) + extra).replace("\n", "\n    ")
