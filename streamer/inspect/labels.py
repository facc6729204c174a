"""Where labels of a map stand, so that none covers another: for pages, which measure no text."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 860, 560
"""Pixels of a map on a small screen; on a larger one there is only more room."""
LETTER, PADDING = 0.62, 3
"""Width of a letter by the size of the font; pixels around a text."""
MOST = 32
"""Letters of a label."""


class Label(NamedTuple):
    """A text for the map."""

    words: str
    x: float
    y: float
    """What it is a label of, as shares of the map's width and height, from the left and below."""
    size: int
    """Of the font, in pixels."""
    shifts: Sequence[tuple[int, int]]
    """Where it may stand, in pixels to the right and up; the first is best."""
    colour: str


def short(words: str) -> str:
    return words if len(words) <= MOST else f"{words[: MOST - 1].rstrip()}…"


def width(words: str, size: int) -> float:
    """Pixels that a text takes, roughly and rather more."""
    letters = sum(2.0 if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in words)
    return letters * LETTER * size + 2 * PADDING


def shares(xy: NDArray[np.float32], margin: float = 0.04) -> NDArray[np.float64]:
    """Points, shape (n, 2), as shares of a map that holds all of them with a margin."""
    low, high = xy.min(axis=0), xy.max(axis=0)
    span = np.maximum(high - low, 1e-9).astype(np.float64)
    return margin + (1 - 2 * margin) * (xy - low) / span


Standing = tuple[Label, tuple[int, int]]
"""A label and the shift that was chosen."""


def box_of(standing: Standing) -> NDArray[np.float64]:
    """Left, lower, right and upper edge in pixels."""
    label, (dx, dy) = standing
    w, h = width(label.words, label.size), label.size + 2 * PADDING
    # A shift to the right moves the left edge, one to the left the right edge.
    left = label.x * WIDTH + dx - (0.5 if dx == 0 else 0.0 if dx > 0 else 1.0) * w
    below = label.y * HEIGHT + dy - h / 2
    return np.array([left, below, left + w, below + h])


def arranged(labels: Iterable[Label], most: int, there: Sequence[Standing] = ()) -> list[Standing]:
    """The first labels, `most` at most, that can stand beside those before and those `there`."""
    boxes = np.array([box_of(one) for one in there]).reshape(-1, 4)
    out: list[Standing] = []
    for label in labels:
        if len(out) == most:
            break
        for shift in label.shifts:
            box = box_of((label, shift))
            inside = box[0] >= 0 and box[2] <= WIDTH
            apart = (
                (boxes[:, 0] >= box[2]) | (boxes[:, 2] <= box[0])
                | (boxes[:, 1] >= box[3]) | (boxes[:, 3] <= box[1])
            )  # fmt: skip
            if inside and apart.all():
                boxes = np.vstack([boxes, box])
                out.append((label, shift))
                break
    return out
