"""Clicks and items in the lines of CSV and TSV."""

import csv
import math
from collections.abc import Callable
from pathlib import Path

import msgspec

from streamer.decode.formats import short
from streamer.errors import ConfigError
from streamer.files.lines import (
    TO_MS,
    UNREADABLE,
    Flaw,
    Record,
    Unit,
    bytes_of,
    key_of,
    text_of,
    time_flaw,
)

Split = Callable[[str], list[str]]

_CLICK_COLUMNS = ("user_id", "item_id", "ts", "event_type", "weight", "event_id")
_NEEDED = _CLICK_COLUMNS[:3]


class _Click(msgspec.Struct, omit_defaults=True):
    user_id: str
    item_id: str
    ts: int
    event_type: str = "click"
    weight: float | None = None
    event_id: str | None = None


_encode = msgspec.json.Encoder().encode


def split_tsv(line: str) -> list[str]:
    return line.split("\t")


def split_csv(line: str) -> list[str]:
    return next(csv.reader([line], strict=True)) if '"' in line else line.split(",")


def columns_of(path: Path, named: list[str] | None, first: list[str]) -> list[str]:
    """The columns that were `named`, else those of the first line. ConfigError if they differ."""
    if named is None:
        return [name.strip() for name in first]
    if len(first) != len(named):
        raise ConfigError(
            f"{path}: the first line has {len(first)} columns and {len(named)} are named "
            f"({','.join(named)}); name all of them, `_` for one to skip"
        )
    return named


class ClickTable:
    """The lines of one file. ConfigError if a column that every click needs is not there."""

    def __init__(
        self, path: Path, head: bytes, named: list[str] | None, split: Split, unit: Unit
    ) -> None:
        self._path, self._split, self._unit = path, split, unit
        self._is_headless = named is not None
        self._columns = columns_of(path, named, split(text_of(head)))
        for name in _NEEDED:
            if name not in self._columns:
                raise ConfigError(
                    f"{path}: no column {name!r} among {', '.join(self._columns)}; "
                    "a file without a header line needs its columns named"
                )
        # A column that is not there is the empty field that is appended to every line.
        self._places = [
            self._columns.index(name) if name in self._columns else -1 for name in _CLICK_COLUMNS
        ]

    def records(self, block: bytes, first: int) -> list[Record]:
        """The lines of a block, of which the first has the number `first`; blank ones are left out.

        A line that is no click is a record of its raw bytes, and says why.
        """
        path, split, to_ms, width = self._path, self._split, TO_MS[self._unit], len(self._columns)
        user, item, ts, event_type, weight, event_id = self._places
        records: list[Record] = []
        for number, line in enumerate(text_of(block).split("\n"), first):
            try:
                fields = split(line)
                if len(fields) != width or not fields[user] or not fields[item]:
                    raise ValueError
                fields.append("")
                ms = to_ms(fields[ts])
                click = _Click(
                    fields[user],
                    fields[item],
                    ms,
                    fields[event_type] or "click",
                    _weight(fields[weight]) if fields[weight] else None,
                    fields[event_id] or None,
                )
                records.append(Record(fields[user].encode(), _encode(click), ms, path, number))
            except UNREADABLE:
                if line.strip():
                    raw, flaw = bytes_of(line), self._flaw(line, number)
                    records.append(Record(None, raw, None, path, number, flaw))
        return records

    def _flaw(self, line: str, number: int) -> Flaw:
        """Why a line is no click."""
        try:
            fields = self._split(line)
        except csv.Error as error:
            return Flaw("quotes", f"has broken quotes: {error}")
        if len(fields) != len(self._columns):
            there = f"{len(self._columns)} ({','.join(self._columns)})"
            return Flaw("columns", f"has {len(fields)} columns, and there are {there}")
        named = dict(zip(self._columns, fields, strict=True))
        if self._is_headless and number == 1 and not any(c.isdigit() for c in named["ts"]):
            return Flaw("header", "looks like a header: with --columns it is taken for a click")
        for name in _NEEDED[:2]:
            if not named[name]:
                return Flaw(f"empty {name}", f"has no {name}: the field is empty")
        if flaw := time_flaw(named["ts"], self._unit):
            return flaw
        try:
            _weight(named.get("weight") or "1")
        except ValueError:
            return Flaw("weight", f"weight is {short(named['weight'])}, which is no finite number")
        return Flaw("text", "is not in UTF-8")


def _weight(text: str) -> float:
    weight = float(text)
    if not math.isfinite(weight):
        raise ValueError(text)
    return weight


def item(columns: list[str], row: list[str]) -> tuple[bytes, bytes]:
    """Key and value of an item. ValueError if its row does not fit or has no id."""
    if len(row) != len(columns):
        raise ValueError(f"it has {len(row)} columns and there are {len(columns)}")
    named = dict(zip(columns, row, strict=True))
    id_column = next((name for name in ("item_id", "item") if name in named), columns[0])
    item_id = named.pop(id_column)
    attributes: dict[str, str | list[str]] = {}
    for name, value in named.items():
        parts = [part for part in value.split("|") if part]
        if parts and name != "_":
            attributes[name] = parts if "|" in value else value
    return item_key(item_id), _encode({"item_id": item_id, "attributes": attributes})


def item_key(identifier: object) -> bytes:
    """The key of an item. ValueError if it has none."""
    key = key_of(identifier)
    if key is None:
        raise ValueError("it has no item_id")
    return key
