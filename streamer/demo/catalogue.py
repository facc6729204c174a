"""The catalogue of the synthetic shop: products whose names tell what belongs together."""

from dataclasses import dataclass
from random import Random
from typing import Any

_ADJECTIVES = (
    *("Antique", "Bright", "Classic", "Compact", "Curved", "Dark", "Elegant", "Fine", "Folding"),
    *("Large", "Light", "Modern", "Narrow", "Patterned", "Plain", "Rustic", "Slim", "Small"),
    *("Striped", "Tall"),
)

# category: materials; kinds. No kind stands in two categories, so names are unique.
_CATEGORIES: dict[str, tuple[str, str]] = {
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
KINDS = 5
_LOOKS = 5 * len(_ADJECTIVES)
CATEGORIES = len(_CATEGORIES)
PER_CATEGORY = KINDS * _LOOKS


@dataclass(frozen=True)
class Product:
    """A product; `category` and `kind`, which is within the category, are numbers."""

    item_id: str
    name: str
    category_name: str
    category: int
    kind: int

    def record(self) -> dict[str, Any]:
        """Its record for the topic `items`."""
        kind = self.name.rpartition(" ")[2]
        attributes = {"name": self.name, "category": self.category_name, "kind": kind}
        return {"item_id": self.item_id, "attributes": attributes}


def products(random: Random, count: int, categories: int) -> list[Product]:
    """`count` products, one category after another in turn.

    Names are looks, shuffled for every kind: adjective and material, each pair used once. Raises
    `ValueError` for counts that no shop can have.
    """
    if not 1 <= categories <= CATEGORIES:
        raise ValueError(f"a shop has 1 to {CATEGORIES} categories, not {categories}")
    fewest, most = max(2, categories), PER_CATEGORY * categories
    if not fewest <= count <= most:
        raise ValueError(f"{categories} categories hold {fewest} to {most} products, not {count}")
    names = list(_CATEGORIES)[:categories]
    looks = {
        (category, kind): random.sample(
            [f"{a} {m}" for a in _ADJECTIVES for m in _CATEGORIES[name][0].split()], _LOOKS
        )
        for category, name in enumerate(names)
        for kind in range(KINDS)
    }
    made = []
    for number in range(count):
        category, kind = number % categories, number // categories % KINDS
        look = looks[category, kind][number // categories // KINDS]
        name = names[category]
        noun = _CATEGORIES[name][1].split()[kind]
        made.append(Product(f"sku-{number:04d}", f"{look} {noun}", name, category, kind))
    return made
