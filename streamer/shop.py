"""A small synthetic shop: named items, users with tastes, and an endless stream of their clicks.

It has the structure that the engine is meant to find, so that a neighbour can be judged by its
name: a category has five kinds of item (its nouns), sessions keep to a category and mostly to one
kind, popularity follows Zipf, and one click in ten is noise.
"""

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt

_ADJECTIVES = (
    *("Antique", "Bright", "Classic", "Compact", "Curved", "Dark", "Elegant", "Fine", "Folding"),
    *("Large", "Light", "Modern", "Narrow", "Patterned", "Plain", "Rustic", "Slim", "Small"),
    *("Striped", "Tall"),
)

# category: materials; kinds. No kind stands in two categories, so names are unique.
_CATALOGUE: dict[str, tuple[str, str]] = {
    "garden": ("copper teak terracotta iron stone", "lantern planter birdhouse bench trellis"),
    "kitchen": ("steel bamboo cast-iron enamel granite", "pan whisk colander ladle grater"),
    "tableware": ("porcelain stoneware glass pewter acacia", "bowl plate mug jug platter"),
    "bedroom": ("cotton linen silk flannel down", "pillow duvet blanket sheet bedspread"),
    "office": ("oak walnut mesh aluminium cork", "desk chair bookshelf organiser noticeboard"),
    "lighting": ("brass paper rattan chrome opal", "lamp chandelier sconce spotlight nightlight"),
    "bathroom": (
        "ceramic marble soapstone slate frosted",
        "basin mirror soap-dish washstand dispenser",
    ),
    "toys": ("wooden plush felt magnetic tin", "train puzzle doll kite robot"),
    "sport": ("carbon rubber foam nylon leather", "racket dumbbell ball skipping-rope glove"),
    "clothing": ("wool denim corduroy velvet cashmere", "jacket scarf jumper trousers cardigan"),
    "shoes": ("suede canvas patent knitted calfskin", "boot sandal sneaker loafer slipper"),
    "jewellery": ("silver gold pearl jade amber", "ring necklace bracelet brooch earring"),
    "music": ("maple rosewood spruce ebony mahogany", "guitar violin flute drum ukulele"),
    "stationery": (
        "recycled ivory marbled kraft embossed",
        "notebook envelope diary sketchbook card",
    ),
    "travel": ("waxed polyester vegan quilted ripstop", "suitcase backpack wallet tent hammock"),
}
_NOISE = 0.1
_SAME_KIND = 0.7
_TASTES = 3
_KINDS = 5
_LOOKS = 5 * len(_ADJECTIVES)
_PER_CATEGORY = _KINDS * _LOOKS


class _Draw:
    """Weighted choice among `ids` (int64, any length > 0) by binary search."""

    def __init__(self, ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> None:
        self._ids = ids
        self._bounds = np.cumsum(weights / weights.sum())[:-1]

    def __call__(self, rng: np.random.Generator) -> int:
        return int(self._ids[self._bounds.searchsorted(rng.random(), side="right")])


class Shop:
    """A shop that is a function of its arguments.

    Raises `ValueError` for more than 15 categories, more than 500 products in one, fewer products
    than categories or than 2, or no users.
    """

    def __init__(
        self, seed: int, products: int = 300, categories: int = 15, users: int = 200
    ) -> None:
        if not 1 <= categories <= len(_CATALOGUE):
            raise ValueError(f"a shop has 1 to {len(_CATALOGUE)} categories, not {categories}")
        fewest, most = max(2, categories), _PER_CATEGORY * categories
        if not fewest <= products <= most:
            raise ValueError(
                f"{categories} categories hold {fewest} to {most} products, not {products}"
            )
        if users < 1:
            raise ValueError(f"a shop has at least one user, not {users}")
        rng = np.random.default_rng([seed, 0])
        self._seed = seed
        self._users = users
        ids = np.arange(products)
        category = ids % categories
        kind = ids // categories % _KINDS
        self._items = _items(rng, category, kind)

        popularity = 1.0 / (rng.permutation(products) + 1)

        def among(chosen: npt.NDArray[np.bool_]) -> _Draw:
            return _Draw(ids[chosen], popularity[chosen])

        self._any = among(np.ones(products, dtype=np.bool_))
        self._like = [
            (among((category == category[i]) & (kind == kind[i])), among(category == category[i]))
            for i in ids
        ]
        tastes = min(_TASTES, categories)
        self._tastes = [
            _Draw(
                rng.choice(categories, tastes, replace=False),
                0.5 ** np.arange(tastes, dtype=np.float64),
            )
            for _ in range(users)
        ]

    def items(self) -> list[dict[str, Any]]:
        """Records for the topic `items`, with the attributes `name` and `category`."""
        return self._items

    def clicks(self, start_ms: int, rate: float = 50.0) -> Iterator[dict[str, Any]]:
        """Records for the topic `clicks` without end, about `rate` of them a second of event time.

        `ts` never decreases and begins at `start_ms`. A quarter of the users are in a session at
        any time. A user comes back some 4 x `users` / `rate` seconds after leaving: if the session
        gap is longer than that, the engine takes the visits of a user for one session.
        """
        rng = np.random.default_rng([self._seed, 1])
        idle = rng.permutation(self._users).tolist()
        present = [idle.pop() for _ in range(-(-self._users // 4))]
        sessions = [self._session(user, rng) for user in present]
        now = float(start_ms)
        while True:
            slot = int(rng.integers(len(sessions)))
            item = next(sessions[slot], None)
            if item is None:
                idle.append(present[slot])
                present[slot] = idle.pop(int(rng.integers(len(idle))))
                sessions[slot] = self._session(present[slot], rng)
                continue
            yield {
                "user_id": f"user-{present[slot]:04d}",
                "item_id": _item_id(item),
                "ts": int(now),
                "event_type": "click",
            }
            now += rng.exponential(1000.0 / rate)

    def _session(self, user: int, rng: np.random.Generator) -> Iterator[int]:
        """2 to 8 items of one category; what is looked at next is mostly of the last one's kind."""
        # Items 0 to categories - 1 are one of each category.
        interest = self._like[self._tastes[user](rng)][1](rng)
        last = -1
        for _ in range(int(rng.integers(2, 9))):
            same_kind, same_category = self._like[interest]
            if rng.random() < _NOISE:
                draws = [self._any]
            elif rng.random() < _SAME_KIND:
                draws = [same_kind] * 2 + [same_category] * 6
            else:
                draws = [same_category] * 6
            # A page is not clicked twice in a row; the shop may have one product of a category.
            items = (draw(rng) for draw in chain(draws, repeat(self._any)))
            item = next(item for item in items if item != last)
            if draws[0] is not self._any:
                interest = item
            yield item
            last = item


def _item_id(item: int) -> str:
    return f"sku-{item:04d}"


def _items(
    rng: np.random.Generator, category: npt.NDArray[np.int64], kind: npt.NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Names are looks, shuffled for every kind: adjective and material, each pair used once."""
    catalogue = [
        (name, nouns.split(), [f"{a} {m}" for a in _ADJECTIVES for m in materials.split()])
        for name, (materials, nouns) in _CATALOGUE.items()
    ]
    looks = rng.permuted(np.tile(np.arange(_LOOKS), (len(catalogue), _KINDS, 1)), axis=2)
    items = []
    for item, (c, k) in enumerate(zip(category.tolist(), kind.tolist(), strict=True)):
        name, nouns, pairs = catalogue[c]
        look = pairs[looks[c, k, item // (int(category.max()) + 1) // _KINDS]]
        attributes = {"name": f"{look} {nouns[k]}", "category": name}
        items.append({"item_id": _item_id(item), "attributes": attributes})
    return items
