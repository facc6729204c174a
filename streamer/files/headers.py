"""Which column of a table is what: by its header line, or as the command line names them."""

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from streamer.errors import ConfigError
from streamer.files.lines import NOT_UTF_8
from streamer.inspect.guessing import ITEMS, TIMES, TYPES, USERS
from streamer.wording import counted

Split = Callable[[str], list[str]]
Columns = list[str] | dict[str, str] | None
"""Names of all columns of a file without a header; or by name the column of one that has a header;
or None: the header has the names."""

SKIPPED = "_"

DELIMITERS = (",", "\t", ";", "|")
_BY_SUFFIX = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t", ".item": "\t", ".psv": "|"}
_TYPED = re.compile(r"(.+):(?:token|float)(?:_seq)?")
"""A column of RecBole's files."""

_SURROGATE = re.compile("[\udc80-\udcff]")
"""A byte that is no UTF-8."""

_HINTS = {"user_id": USERS, "item_id": ITEMS, "ts": TIMES, "event_type": TYPES}
_ENDINGS = re.compile(r"(?:id|code|date|time)$")


class Header(NamedTuple):
    """The columns of a file, and how a line becomes fields."""

    columns: list[str]
    split: Split
    delimiter: str
    is_first_line: bool
    """The first line is no record."""


def splitter(delimiter: str) -> Split:
    """Fields of a line; quotes have no meaning between tabs."""
    if delimiter == "\t" or len(delimiter) > 1:
        return lambda line: line.split(delimiter)

    def split(line: str) -> list[str]:
        if '"' in line:
            return next(csv.reader([line], delimiter=delimiter, strict=True))
        return line.split(delimiter)

    return split


def delimiter_of(
    first: str, suffix: str, named: Columns, needed: Sequence[str], given: str | None
) -> str:
    """What is between the fields of a file: as `given`, else that with which the first line has
    the columns that are named or needed."""
    if given is not None:
        return given
    usual = _BY_SUFFIX.get(suffix, ",")
    wanted = set(named.values() if isinstance(named, dict) else needed or ("item_id",))
    width = len(named) if isinstance(named, list) else None

    def fit(delimiter: str) -> tuple[bool, int, bool, int]:
        try:
            fields = splitter(delimiter)(first)
        except csv.Error:
            return False, 0, delimiter == usual, 0
        found = len(wanted & set(_names(fields))) if width is None else 0
        return len(fields) == width, found, delimiter == usual and len(fields) > 1, len(fields)

    return max((usual, *DELIMITERS), key=fit)


def read(
    name: str, fields: list[str], named: Columns, delimiter: str, needed: Sequence[str],
    known: Sequence[str],
) -> Header:  # fmt: skip
    """The columns of the file `name`, of which the first line has these fields.

    `needed` must be among them, and `known` is what --columns may name, all if it is empty.
    ConfigError if they are not there, or are there twice.
    """
    split = splitter(delimiter)
    if isinstance(named, list):
        columns = _positional(name, fields, named, delimiter)
        _check(name, columns, needed, False)
        return Header(columns, split, delimiter, _is_header(columns, fields))
    columns = _names(fields)
    if named is not None:
        columns = _renamed(name, columns, named, known)
    _check(name, columns, needed, named is None)
    return Header(columns, split, delimiter, True)


def refuse_clicks(name: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """ConfigError for clicks, which have the columns `needed`, where a catalogue is read: each
    user would be an attribute."""
    if set(needed) <= set(columns):
        raise ConfigError(
            f"{name}: has {', '.join(needed[:-1])} and {needed[-1]}, so these are clicks, and "
            "--items takes a catalogue: give clicks to `walkstream publish` without it. In a "
            "catalogue call one of the three otherwise, or put what an item has into `attributes`, "
            "in JSON lines"
        )


def _names(fields: list[str]) -> list[str]:
    names = [field.strip().strip('"') for field in fields]
    if typed := [match[1] for name in names if (match := _TYPED.fullmatch(name))]:
        if len(typed) < len(names):
            return names
        if "ts" not in typed:
            return ["ts" if name == "timestamp" else name for name in typed]
        return typed
    return names


def _positional(name: str, found: list[str], named: list[str], delimiter: str) -> list[str]:
    if len(found) != len(named):
        raise ConfigError(
            f"{name}: the first line has {counted(len(found), 'column')} and {len(named)} are "
            f"named ({','.join(named)}), with {_said(delimiter)} between them; name all of them, "
            f"`{SKIPPED}` for one to skip, or give --delimiter"
        )
    return named


def _is_header(columns: list[str], fields: list[str]) -> bool:
    """Whether the fields of a first line are names, although all columns are named already."""
    time = dict(zip(columns, fields, strict=True)).get("ts", "")
    return bool(time.strip()) and not any(character.isdigit() for character in time)


def _renamed(
    name: str, columns: list[str], named: dict[str, str], known: Sequence[str]
) -> list[str]:
    if known and (unknown := [new for new in named if new not in known]):
        raise ConfigError(
            f"--columns: {', '.join(unknown)} is no column of a click; these are {', '.join(known)}"
        )
    if missing := [column for column in named.values() if column not in columns]:
        raise ConfigError(
            f"{name}: no column {', '.join(map(repr, missing))} among {', '.join(columns)}"
        )
    counts = Counter(columns)
    if twice := [column for column in named.values() if counts[column] > 1]:
        raise ConfigError(f"{name}: column {twice[0]!r} is there {counts[twice[0]]} times")
    if len(set(named.values())) < len(named):
        raise ConfigError("--columns: gives one column two names")
    by_column = {column: new for new, column in named.items()}
    return [by_column.get(column, SKIPPED if column in named else column) for column in columns]


def _check(name: str, columns: list[str], needed: Sequence[str], from_header: bool) -> None:
    for column in needed:
        if column not in columns:
            cure = _cure(columns, needed) if from_header else "name it as well"
            raise ConfigError(f"{name}: no column {column!r} among {', '.join(columns)}; {cure}")
    counts = Counter(column for column in columns if column not in (SKIPPED, ""))
    # Of clicks the others are not read.
    of_interest = (*needed, "event_type", "weight", "event_id") if needed else counts
    if twice := [column for column in of_interest if counts[column] > 1]:
        raise ConfigError(
            f"{name}: column {twice[0]!r} is there {counts[twice[0]]} times; which one counts is "
            f"for you to say: rename the other, or name all columns and `{SKIPPED}` for the other"
        )


def _cure(columns: list[str], needed: Sequence[str]) -> str:
    """What to give on the command line, as far as names tell."""
    if any(_SURROGATE.search(column) for column in columns):
        return f"the first line {NOT_UTF_8}"
    found = {column: column for column in needed if column in columns}
    for column, hints in _HINTS.items():
        if column in columns or (column not in needed and column != "event_type"):
            continue
        for candidate in columns:
            plain = re.sub(r"[^a-z]", "", candidate.lower())
            stem = _ENDINGS.sub("", plain)
            if candidate not in found.values() and (plain in hints or (stem and stem in hints)):
                found[column] = candidate
                break
    if all(column in found for column in needed):
        named = ",".join(f"{column}={found[column]}" for column in (*needed, "event_type")
                         if column in found)  # fmt: skip
        return f"is it --columns {named}?"
    names = ",".join(f"{column}=COLUMN" for column in needed)
    return (
        f"name them with --columns {names}; a file without a header line needs all of its columns "
        "named in their order, and one with another delimiter needs --delimiter"
    )


def _said(delimiter: str) -> str:
    return {"\t": "tabs", ",": "commas", ";": "semicolons"}.get(delimiter, repr(delimiter))
