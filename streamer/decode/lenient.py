"""MessagePack that msgspec refuses for a part that no field of a click is in.

Names and texts that are not UTF-8, times out of range, and names that cannot be looked up are no
reason to lose a click: readers that skip what they do not use never see them.
"""

import struct
from typing import Any

from msgspec.msgpack import Ext

DEEPEST = 1000
"""Maps and arrays inside each other at most; msgspec allows fewer."""

_NUMBERS = {
    code: struct.Struct(form)
    for code, form in zip(
        range(0xCA, 0xD4), [">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"], strict=True
    )
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_BIN, _EXT, _STR, _ARRAY, _MAP = range(5)
_LENGTHS = {
    0xC4: (_BIN, 1), 0xC5: (_BIN, 2), 0xC6: (_BIN, 4), 0xC7: (_EXT, 1), 0xC8: (_EXT, 2),
    0xC9: (_EXT, 4), 0xD9: (_STR, 1), 0xDA: (_STR, 2), 0xDB: (_STR, 4), 0xDC: (_ARRAY, 2),
    0xDD: (_ARRAY, 4), 0xDE: (_MAP, 2), 0xDF: (_MAP, 4),
}  # fmt: skip
"""Of codes that a length follows: the kind, and how many bytes the length has."""


def decode(data: bytes) -> object:
    """The document; text that is not UTF-8 has lone surrogates. ValueError for what is none.

    It makes nothing that is declared before it is there, so that any bytes take a time that grows
    with their number.
    """
    at, end = 0, len(data)
    # Of what is open: what is in it, how much it will be, whether it is a map.
    opened: list[tuple[list[Any], int, bool]] = []
    while True:
        if at >= end:
            raise ValueError("is cut short")
        code = data[at]
        at += 1
        value: Any = None
        if code < 0x80:
            value = code
        elif code >= 0xE0:
            value = code - 0x100
        elif code in _NUMBERS:
            form = _NUMBERS[code]
            if at + form.size > end:
                raise ValueError("is cut short")
            (value,) = form.unpack_from(data, at)
            at += form.size
        elif code in _CONSTANTS:
            value = _CONSTANTS[code]
        elif code == 0xC1:
            raise ValueError("has the byte 0xc1, which begins nothing")
        else:
            if code < 0xC0:
                kind = _STR if code >= 0xA0 else _ARRAY if code >= 0x90 else _MAP
                n = code & (0x1F if kind == _STR else 0x0F)
            elif code in _LENGTHS:
                kind, size = _LENGTHS[code]
                n = int.from_bytes(data[at : at + size], "big")
                at += size
            else:
                kind, n = _EXT, 1 << (code - 0xD4)
            if kind in (_ARRAY, _MAP):
                if n and at < end:
                    if len(opened) == DEEPEST:
                        raise ValueError(f"nests deeper than {DEEPEST} maps and arrays")
                    opened.append(([], 2 * n if kind == _MAP else n, kind == _MAP))
                    continue
                value = {} if kind == _MAP else []
                if n or at > end:
                    raise ValueError("is cut short")
            else:
                begin = at + (kind == _EXT)
                if begin + n > end:
                    raise ValueError("is cut short")
                taken = data[begin : begin + n]
                value = taken.decode(errors="surrogateescape") if kind == _STR else taken
                if kind == _EXT:
                    value = Ext(data[at] - 0x100 * (data[at] > 0x7F), taken)
                at = begin + n
        while opened:
            inside, n, is_map = opened[-1]
            inside.append(value)
            if len(inside) < n:
                break
            opened.pop()
            value = _as_map(inside) if is_map else inside
        else:
            if at < end:
                raise ValueError("has bytes behind its end")
            return value


def _as_map(inside: list[Any]) -> dict[Any, Any]:
    """Of names and values in turns; without names that no path spells, and no dict looks up."""
    return {
        name: value
        for name, value in zip(inside[::2], inside[1::2], strict=True)
        if not isinstance(name, list | dict | Ext)
    }
