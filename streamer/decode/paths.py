"""Where a field of a click is in a document.

A path is a name, or names with a dot between: `product.sku`. `[]` behind a name leads into each
element of an array: of `lines[].sku` each element is a click of its own. Where a field is in one of
several places, ` | ` stands between their paths: the first that is there and not null counts.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from streamer.decode.formats import short

EACH = "[]"
OR = " | "
ABSENT = object()

Arrays = tuple[str, ...]
"""Paths of arrays one inside the other, each from the element of the one before."""


class Path(NamedTuple):
    """One place where a field may be."""

    arrays: Arrays
    """Those that it leads through."""
    inside: str
    """The path from there on, "" for the element itself."""


class Element(NamedTuple):
    """One of several clicks of a document: an element of an array, with all that is around it."""

    around: Mapping[Arrays, Any]
    """The document, at (), and the element that is meant of each array, the innermost last."""
    where: tuple[int, ...]
    """Its index in each of these arrays."""
    array: list[Any]
    """The innermost."""

    @property
    def arrays(self) -> Arrays:
        return tuple(self.around)[-1]

    @property
    def name(self) -> str:
        """Such as `orders[0].lines[2]`."""
        return ".".join(f"{n}[{at}]" for n, at in zip(self.arrays, self.where, strict=True))


@lru_cache(maxsize=1024)
def alternatives(path: str) -> tuple[Path, ...]:
    """Where a field may be, in the order of preference."""
    out = []
    for one in path.split(OR):
        first, *further = one.split(EACH)
        # A step that does not begin with a dot is no path: `limits` refuses the empty name in it.
        steps = [first, *(s[1:] if s.startswith(".") else s and f".{s}" for s in further)]
        out.append(Path(tuple(steps[:-1]), steps[-1]))
    return tuple(out)


def is_plain(path: str) -> bool:
    """Whether a path is one place, and in no array."""
    return EACH not in path and OR not in path


def find(document: Any, path: str) -> Any:
    """The value at a path of a document, or of an `Element`; ABSENT if there is none."""
    return found(document, path)[0]


def found(document: Any, path: str) -> tuple[Any, Arrays]:
    """The same, and the arrays that it is in."""
    around: Mapping[Arrays, Any]
    around = document.around if isinstance(document, Element) else {(): document}
    if is_plain(path):
        return _inside(around[()], path), ()
    best: Any = ABSENT
    for arrays, inside in alternatives(path):
        value = _inside(around[arrays], inside) if arrays in around else ABSENT
        if value is not ABSENT and value is not None:
            return value, arrays
        best = None if value is None else best
    return best, ()


def elements(document: Mapping[Any, Any], path: str) -> Iterator[Element]:
    """The elements that a path leads to, none if it leads to a value in no array. A null is none.

    ValueError if something else is where an array should be.
    """
    for arrays, inside in alternatives(path):
        if not arrays:
            if _inside(document, inside) not in (ABSENT, None):
                return
            continue
        n = 0
        for n, element in enumerate(_each({(): document}, arrays, ()), 1):  # noqa: B007
            yield element
        if n:
            return


def _each(around: dict[Arrays, Any], arrays: Arrays, where: tuple[int, ...]) -> Iterator[Element]:
    reached = arrays[: len(where)]
    array = _inside(around[reached], arrays[len(where)])
    if array is ABSENT or array is None:
        return
    step = arrays[: len(where) + 1]
    if not isinstance(array, list):
        raise ValueError(f"{EACH}.".join(step) + f" must be an array, not {short(array)}")
    for index, value in enumerate(array):
        if value is None:
            continue
        inner = around | {step: value}
        if step == arrays:
            yield Element(inner, (*where, index), array)
        else:
            yield from _each(inner, arrays, (*where, index))


def _inside(document: Any, path: str) -> Any:
    """The value of a key that has dots in it, or else at the end of the path."""
    if not path:
        return document
    if isinstance(document, dict) and path in document:
        return document[path]
    for name in path.split("."):
        if not isinstance(document, dict) or name not in document:
            return ABSENT
        document = document[name]
    return document
