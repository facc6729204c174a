"""Clicks and items in the lines of tables: CSV, TSV and their kin, and rows of Parquet."""

import csv
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamer.decode.fields import numeral
from streamer.decode.formats import short
from streamer.files import findings
from streamer.files.findings import Findings
from streamer.files.headers import SKIPPED, Header
from streamer.files.lines import NOT_UTF_8, UNREADABLE, Record, bytes_of, key_of
from streamer.files.times import TO_MS, Flaw, Unit, time_flaw
from streamer.wording import counted

CLICK_COLUMNS = ("user_id", "item_id", "ts", "event_type", "weight", "event_id")
NEEDED = CLICK_COLUMNS[:3]

NULLS = ("NULL", "null", "None", "nan", "NaN", "\\N")
"""Texts of a field that databases and pandas write where there is none."""

_SHORTENED = re.compile(r"\d(?:\.\d+)?[eE]\+?\d+")
_FLOAT = re.compile(r"\d+\.0")
_MAY_BE_DAMAGED = re.compile(r"\d(?:\.0|[eE]\+?\d)")


class _Click(msgspec.Struct, omit_defaults=True):
    user_id: str
    item_id: str
    ts: int
    event_type: str = "click"
    weight: float | None = None
    event_id: str | None = None


_encode = msgspec.json.Encoder().encode


class ClickTable:
    """The lines of one file under its header; `nulls` are the texts of fields that are missing."""

    def __init__(
        self, path: Path, header: Header, unit: Unit, nulls: Iterable[str], found: Findings
    ) -> None:
        self._path, self._header, self._unit, self._found = path, header, unit, found
        self._nulls = frozenset(("", *nulls))
        self._columns = header.columns
        # A column that is not there is the empty field that is appended to every line.
        self._places = [
            self._columns.index(name) if name in self._columns else -1 for name in CLICK_COLUMNS
        ]

    def lines(self, text: str, first: int) -> list[Record]:
        """The lines of a text, of which the first has the number `first`; blank ones are left out.

        A line that is no click is a record of its raw bytes, and says why.
        """
        return self._records(
            text.split("\n"), first, self._header.split, bytes_of,
            _MAY_BE_DAMAGED.search(text) is not None,
        )  # fmt: skip

    def rows(self, rows: Sequence[list[str]], first: int) -> list[Record]:
        """The same of rows that are split already."""
        return self._records(rows, first, list, _encode, True)

    def _records(
        self, lines: Sequence[Any], first: int, split: Callable[[Any], list[str]],
        as_it_came: Callable[[Any], bytes], may_be_damaged: bool,
    ) -> list[Record]:  # fmt: skip
        path, to_ms, width, nulls = self._path, TO_MS[self._unit], len(self._columns), self._nulls
        user, item, ts, event_type, weight, event_id = self._places
        records: list[Record] = []
        for number, line in enumerate(lines, first):
            try:
                fields = split(line)
                if len(fields) != width or fields[user] in nulls or fields[item] in nulls:
                    raise ValueError
                fields.append("")
                ms = to_ms(fields[ts])
                click = _Click(
                    fields[user],
                    fields[item],
                    ms,
                    "click" if fields[event_type] in nulls else fields[event_type],
                    None if fields[weight] in nulls else self._weight(fields[weight]),
                    None if fields[event_id] in nulls else fields[event_id],
                )
                record = Record(fields[user].encode(), _encode(click), ms, path, number)
                if may_be_damaged:
                    self._tell_damage(record, click)
                records.append(record)
            except UNREADABLE:
                if not isinstance(line, str) or line.strip():
                    flaw = self._flaw(line, split, number)
                    records.append(Record(None, as_it_came(line), None, path, number, flaw))
        return records

    def _tell_damage(self, record: Record, click: _Click) -> None:
        for identifier in (click.user_id, click.item_id):
            for pattern, kind in (
                (_SHORTENED, findings.SHORTENED_ID),
                (_FLOAT, findings.FLOAT_ID),
            ):
                if pattern.fullmatch(identifier):
                    self._found.add(kind, f"{identifier} ({record.where})")

    def _flaw(self, line: Any, split: Callable[[Any], list[str]], number: int) -> Flaw:
        """Why a line is no click."""
        try:
            fields = split(line)
        except csv.Error as error:
            return Flaw("quotes", f"has broken quotes: {error}")
        if len(fields) != len(self._columns):
            there = f"{len(self._columns)} ({','.join(self._columns)})"
            return Flaw("columns", f"has {counted(len(fields), 'column')}, and there are {there}")
        named = dict(zip(self._columns, fields, strict=True))
        if named["user_id"] == "user_id" and named["item_id"] == "item_id":
            return Flaw("header", "is the header once more, as where files were joined")
        for name in NEEDED[:2]:
            if not named[name]:
                return Flaw(f"empty {name}", f"has no {name}: the field is empty")
            if named[name] in self._nulls:
                said = f"has no {name}: the field is {named[name]}, which --null lists"
                return Flaw(f"missing {name}", said)
        if flaw := time_flaw(named["ts"], self._unit):
            return flaw
        weight = named.get("weight", "")
        try:
            if weight not in self._nulls:
                self._weight(weight)
        except ValueError:
            return Flaw("weight", f"weight is {short(weight)}, which is no finite number")
        return Flaw("text", NOT_UTF_8)

    def _weight(self, text: str) -> float:
        # Where semicolons are between the fields, commas are in the numbers.
        weight = numeral(text.replace(",", ".") if self._header.delimiter == ";" else text)
        if not math.isfinite(weight):
            raise ValueError(text)
        return weight


def item(columns: list[str], row: list[str], nulls: Iterable[str]) -> tuple[bytes, bytes]:
    """Key and value of an item. ValueError if its row does not fit or has no id."""
    if len(row) != len(columns):
        raise ValueError(f"it has {counted(len(row), 'column')} and there are {len(columns)}")
    named = dict(zip(columns, row, strict=True))
    id_column = next((name for name in ("item_id", "item") if name in named), columns[0])
    item_id = named.pop(id_column)
    if item_id in nulls:
        raise ValueError(f"it has no item_id: the field is {item_id}, which --null lists")
    attributes: dict[str, str | list[str]] = {}
    for name, value in named.items():
        parts = [part for part in value.split("|") if part]
        if parts and name != SKIPPED and value not in nulls:
            attributes[name] = parts if "|" in value else value
    return item_key(item_id), _encode({"item_id": item_id, "attributes": attributes})


def item_key(identifier: object) -> bytes:
    """The key of an item. ValueError if it has none."""
    key = key_of(identifier)
    if key is None:
        raise ValueError("it has no item_id")
    return key
