"""A small synthetic shop: named products, users with tastes, and an endless stream of their clicks.

It has the structure that the engine is meant to find, so that a neighbour can be judged by its
name: a category has five kinds of product (its nouns), visits keep to a category and mostly to one
kind, popularity follows Zipf, and one click in ten is noise. On request it also has what a real
stream has: tastes that change, products that arrive, bots, records that are broken, and records
that come twice.
"""

import math
from array import array
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, chain, permutations, repeat
from random import Random
from typing import Any, Literal, NamedTuple

import msgspec

from streamer.demo import catalogue
from streamer.demo.catalogue import Product
from streamer.demo.malformed import MALFORMED, Click

_NOISE = 0.1
_SAME_KIND = 0.63
_SHORTEST, _LONGEST = 2, 8
CLICKS_A_VISIT = (_SHORTEST + _LONGEST) / 2
_TASTES = 3
_BOT_SHARE = 0.1
"""The share of all clicks that one bot makes at most."""


class Record(NamedTuple):
    """A record for one of the topics; `time` is that of its click, in ms."""

    topic: Literal["items", "clicks"]
    key: bytes
    value: bytes | None
    time: int


_encode = msgspec.json.Encoder().encode


class Shop:
    """A shop that is a function of its arguments.

    `drift` is the share of visits at which the tastes of the visitor change, and two products of a
    category exchange their popularity. `held_back` products are not there at first: one arrives
    after every `arrive_every` records, as popular as the best of its category. `bots` is the share
    of clicks from users who click on anything without end: one while it is small, and one more for
    each tenth. `malformed` is the share of clicks that are spoilt by one of MALFORMED, `repeated`
    the share that comes a second time.

    `present` users are in a visit at any time, a quarter of the `users` if not given; the others
    come in turn.

    Raises `ValueError` for more than 15 categories, more than 500 products in one, fewer products
    than categories or than 2 at the start, or no users.
    """

    def __init__(
        self,
        seed: int,
        products: int = 300,
        categories: int = 15,
        users: int = 200,
        *,
        present: int | None = None,
        drift: float = 0.0,
        held_back: int = 0,
        arrive_every: int = 1000,
        bots: float = 0.0,
        malformed: float = 0.0,
        repeated: float = 0.0,
    ) -> None:
        if users < 1:
            raise ValueError(f"a shop has at least one user, not {users}")
        self._products = catalogue.products(Random(f"{seed} catalogue"), products, categories)
        self.opening = products - held_back
        """How many products there are at first."""
        if held_back and not max(2, categories) <= self.opening:
            raise ValueError(f"{held_back} of {products} products cannot be held back")
        self._seed, self._categories, self._users = seed, categories, users
        self.bots = math.ceil(bots / _BOT_SHARE)
        """How many bots there are."""
        self._present = min(users, present or -(-users // 4))
        self._drift, self._arrive_every = drift, arrive_every
        self._bots, self._malformed, self._repeated = bots, malformed, repeated

    def items(self) -> list[dict[str, Any]]:
        """Records for the topic `items` of all products, with the attributes `name`, `category` and
        `kind`.

        The products that are held back are the last ones, in the order in which they arrive.
        """
        return [product.record() for product in self._products]

    def clicks(self, start_ms: int, rate: float = 50.0) -> Iterator[Click]:
        """Good clicks without end, about `rate` of them a second of event time.

        `ts` never decreases and begins at `start_ms`. A visitor who is among a quarter of all comes
        back some 4 x `users` / `rate` seconds after leaving: if the session gap is longer than
        that, the engine takes the visits of a user for one session.
        """
        random = Random(f"{self._seed} times")
        now = float(start_ms)
        for number, (user, product) in enumerate(self._events()):
            if user:
                yield self._click(user, product, int(now), start_ms, number)
                now += random.expovariate(rate) * 1000.0

    def records(self, clock: Callable[[], int]) -> Iterator[Record]:
        """The `opening` products, and then clicks without end, with the products that arrive.

        Each is of the time (ms) that `clock` tells when it is asked for. A product's own record
        comes before the first click on it.
        """
        random, events = Random(f"{self._seed} spoils"), self._events()
        spoils = list(MALFORMED.values())
        malformed, repeated = self._malformed, self._repeated
        start = clock()
        for product in self._products[: self.opening]:
            yield _item(product, start)
        for number, (user, product) in enumerate(events):
            now = clock()
            if not user:
                yield _item(product, now)
                continue
            click = self._click(user, product, now, start, number)
            spoilt = malformed and random.random() < malformed
            value = random.choice(spoils)(click) if spoilt else _encode(click)
            record = Record("clicks", user.encode(), value, now)
            yield record
            if repeated and random.random() < repeated:
                yield record

    def _click(self, user: str, product: Product, ts: int, start: int, number: int) -> Click:
        # Two streams of one seed are different events, if they do not begin in the same ms.
        return {
            "user_id": user,
            "item_id": product.item_id,
            "ts": ts,
            "event_type": "click",
            "event_id": f"{self._seed:x}-{start:x}-{number:x}",
        }

    def _events(self) -> Iterator[tuple[str, Product]]:
        """Who clicks on what; nobody (an empty name) where a product arrives."""
        random = Random(f"{self._seed} clicks")
        stock = _Stock(self._products, self.opening, self._categories, random)
        crowd = _Crowd(self._users, self._present, self._categories, random)
        return self._visits(stock, crowd, random)

    def _visits(
        self, stock: "_Stock", crowd: "_Crowd", random: Random
    ) -> Iterator[tuple[str, Product]]:
        number = 0
        while True:
            number += 1
            if stock.waiting and number % self._arrive_every == 0:
                yield "", self._products[stock.arrive()]
            if self._bots and random.random() < self._bots:
                bot = f"bot-{int(random.random() * self.bots)}"
                yield bot, self._products[int(random.random() * stock.size)]
                continue
            slot = int(random.random() * self._present)
            if not crowd.clicks_left[slot]:
                drifts = random.random() < self._drift
                crowd.interest[slot] = stock.of_category(crowd.enter(slot, drifts))
                if drifts:
                    stock.drift()
            item = stock.next_of(crowd.interest[slot], crowd.last[slot])
            if item.follows:
                crowd.interest[slot] = item.number
            crowd.last[slot] = item.number
            crowd.clicks_left[slot] -= 1
            yield f"user-{crowd.user[slot]:04d}", self._products[item.number]


class _Crowd:
    """The users in turn: who is in the shop, one a slot, and what they last looked at.

    A taste is some categories, the favourite first; users have the number of theirs in the list of
    all, 16 bits of which the remainder counts, as there may be millions of users.
    """

    def __init__(self, users: int, present: int, categories: int, random: Random) -> None:
        self._random = random
        self._tastes = list(permutations(range(categories), min(_TASTES, categories)))
        self._bounds = list(accumulate(0.5**n for n in range(len(self._tastes[0]))))
        self._taste = array("H", random.randbytes(2 * users))
        self.user = array("I", range(present))
        # A ring: who leaves takes the place of the one who comes.
        self._idle, self._head = array("I", range(present, users)), 0
        self.clicks_left = [0] * present
        self.interest = [-1] * present
        self.last = [-1] * present

    def enter(self, slot: int, drifts: bool) -> int:
        """Let the visitor of a slot leave and another come; the category of the new visit."""
        random = self._random
        if self._idle:
            self.user[slot], self._idle[self._head] = self._idle[self._head], self.user[slot]
            self._head = (self._head + 1) % len(self._idle)
        user = self.user[slot]
        if drifts:
            self._taste[user] = random.getrandbits(16)
        self.clicks_left[slot] = random.randint(_SHORTEST, _LONGEST)
        self.last[slot] = -1
        taste = self._tastes[self._taste[user] % len(self._tastes)]
        return taste[bisect(self._bounds, random.random() * self._bounds[-1])]


class _Next(NamedTuple):
    number: int
    follows: bool
    """Whether it is what the visit is about, and no noise."""


class _Stock:
    """The products that are there, on a shelf for each category and one for each of its kinds."""

    def __init__(
        self, products: list[Product], opening: int, categories: int, random: Random
    ) -> None:
        self._products, self._random, self.size = products, random, opening
        self.waiting = len(products) - opening
        self._popularity = [1.0 / (rank + 1) for rank in range(len(products))]
        random.shuffle(self._popularity)
        self._categories = [_Shelf(self._popularity, random) for _ in range(categories)]
        self._kinds: dict[tuple[int, int], _Shelf] = {}
        for number in range(opening):
            self._put(number)

    def _put(self, number: int) -> None:
        product = self._products[number]
        kind = product.category, product.kind
        self._kinds.setdefault(kind, _Shelf(self._popularity, self._random))
        for shelf in (self._categories[product.category], self._kinds[kind]):
            shelf.numbers.append(number)
            shelf.weigh()

    def arrive(self) -> int:
        """The next product that was held back. Everybody looks at what is new."""
        number = self.size
        shelf = self._categories[self._products[number].category]
        self._popularity[number] = max(self._popularity[other] for other in shelf.numbers)
        self._put(number)
        self.size += 1
        self.waiting -= 1
        return number

    def drift(self) -> None:
        """Let two products of a category exchange their popularity."""
        shelf = self._random.choice(self._categories)
        a, b = self._random.choices(shelf.numbers, k=2)
        popularity = self._popularity
        popularity[a], popularity[b] = popularity[b], popularity[a]
        for number in (a, b):
            product = self._products[number]
            self._kinds[product.category, product.kind].weigh()
        shelf.weigh()

    def of_category(self, category: int) -> int:
        return self._categories[category].draw()

    def next_of(self, interest: int, last: int) -> _Next:
        """What is looked at after `last` in a visit about `interest`: mostly of its kind.

        A page is not clicked twice in a row; the shop may have one product of a category.
        """
        product, luck = self._products[interest], self._random.random()
        category = self._categories[product.category]
        shelves: Iterable[_Shelf] = [category] * 6
        if luck < _NOISE:
            shelves = ()
        elif luck < _NOISE + _SAME_KIND:
            shelves = [*[self._kinds[product.category, product.kind]] * 2, *shelves]
        for shelf in chain(shelves, repeat(None)):
            found = (shelf or self._random.choice(self._categories)).draw()
            if found != last:
                return _Next(found, bool(shelves))
        raise AssertionError("a shop has two products at least")


class _Shelf:
    """Products by number; draws them by their popularity."""

    def __init__(self, popularity: list[float], random: Random) -> None:
        self.numbers: list[int] = []
        self._popularity, self._random = popularity, random

    def weigh(self) -> None:
        """To be called after numbers or popularity changed."""
        self._bounds = list(accumulate(self._popularity[number] for number in self.numbers))

    def draw(self) -> int:
        bounds = self._bounds
        return self.numbers[bisect(bounds, self._random.random() * bounds[-1], 0, len(bounds) - 1)]


def _item(product: Product, now: int) -> Record:
    return Record("items", product.item_id.encode(), _encode(product.record()), now)
