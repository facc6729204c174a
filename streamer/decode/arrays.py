"""Documents into clicks. Of some, each element of an array is one, as of the lines of an order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from streamer.decode.fields import Invalid, Reader, Reason, Row
from streamer.decode.formats import MAX_PARTS, UNREADABLE, Part
from streamer.decode.paths import Element, elements

Encode = Callable[[Any], bytes]
"""A document into bytes of the format that it came in."""


@dataclass
class Read:
    """What became of a document."""

    rows: list[Row] = field(default_factory=list)
    unwanted: int = 0
    bad: Invalid | None = None
    """Why it, or a part of it, is a dead letter."""
    letter: bytes = b""
    first: int | None = None
    """Which of its clicks is the first that is bad, where others are good."""
    clicks: int = 1
    """How many it carries, whatever became of them."""


def read(
    reader: Reader, encode: Encode | None, part: Part,
    record: int, key: bytes | None, timestamp: int,
) -> Read:  # fmt: skip
    """The clicks of a part: one, or one for each element where the mapping leads through an array.

    Of clicks that are bad where others are good, one dead letter is made: the document, in which
    null stands for each of the good ones. So it costs no more than the document, however many are
    bad, and sent back it counts each click once, under the event id that it always had. Where
    there is no `encode`, or where it fails, the document is a dead letter as it came, and none of
    its clicks counts.
    """
    out = Read()
    bad: list[tuple[Element, Invalid]] = []
    try:
        if part.problem and part.document is None:
            raise Invalid(Reason.UNDECODABLE, part.problem)
        every = _elements(reader, part.document, key, timestamp) if reader.has_arrays else []
        for click in every or (part.document,):
            try:
                row = reader.click(click, record, key, timestamp)
            except Invalid as invalid:
                if not isinstance(click, Element):
                    raise
                bad.append((click, invalid.alone()))
                continue
            out.unwanted += row is None
            out.rows += [] if row is None else [row]
    except Invalid as invalid:
        why = Invalid(Reason.UNDECODABLE, part.problem) if part.problem else invalid
        return Read(bad=why.alone(), letter=part.value)
    out.clicks = max(1, len(every))
    if bad:
        _refuse(out, every, bad, encode, part)
    return out


def _refuse(
    out: Read, every: Sequence[Element], bad: Sequence[tuple[Element, Invalid]],
    encode: Encode | None, part: Part,
) -> None:  # fmt: skip
    (first, why), left = bad[0], {element.where for element, _ in bad}
    message = f"{first.name}: {why.message}"
    if len(bad) > 1:
        message += f" (bad: {len(bad):,} of its {len(every):,} clicks)"
    out.bad, out.letter = Invalid(why.reason, message), part.value
    if len(bad) == len(every):
        return
    for element in every:
        if element.where not in left:
            element.array[element.where[-1]] = None
    try:
        if encode is None:
            raise ValueError("a record with a schema is not written anew")
        out.letter, out.first = encode(part.document), first.where[-1]
    except UNREADABLE:
        out.rows, out.unwanted = [], 0
        out.bad.message += "; the others are not used either, so that it can be sent again"


def _elements(reader: Reader, document: object, key: bytes | None, timestamp: int) -> list[Element]:
    """The clicks of a document, one more than may be at most, none where it is itself one."""
    if not isinstance(document, dict) or reader.leaves_out(document, key, timestamp):
        return []
    try:
        every = list(islice(elements(document, reader.item_path), MAX_PARTS + 1))
    except ValueError as error:
        raise Invalid(Reason.BAD_FIELD, str(error)) from None
    return every
