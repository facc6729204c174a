"""Vectors of items with few clicks, made of others'."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.settings import Settings
from streamer.evaluate.cold import NEAREST, OfCategory, OfNearest, Tokens
from streamer.evaluate.past import Past

catalogues = st.lists(st.lists(st.sampled_from("abcde"), unique=True), min_size=1, max_size=14)


def tokens_of(catalogue: list[list[str]]) -> Tokens:
    return Tokens({f"i{n}": tokens for n, tokens in enumerate(catalogue)}, Past(Settings()))


def table(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(size=(n, 3)).astype(np.float32)


@given(catalogues, st.data())
@settings(max_examples=100, deadline=None)
def test_a_category_is_the_rarest_of_which_enough_are_known(
    catalogue: list[list[str]], data: st.DataObject
) -> None:
    n, of = len(catalogue), tokens_of(catalogue)
    lends = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    found = OfCategory(of).of(~lends, lends, table(n))
    order = list(dict.fromkeys(token for tokens in catalogue for token in tokens))
    for item, tokens in enumerate(catalogue):
        members = {t: [i for i in range(n) if lends[i] and t in catalogue[i]] for t in tokens}
        enough = [t for t in tokens if len(members[t]) >= NEAREST]
        wanted = np.zeros(3)
        if enough and not lends[item]:
            rarest = min(enough, key=lambda t: (len(members[t]), order.index(t)))
            wanted = table(n)[members[rarest]].mean(axis=0)
        np.testing.assert_allclose(found[item], wanted, rtol=1e-5, atol=1e-6)


@given(catalogues, st.data())
@settings(max_examples=100, deadline=None)
def test_the_nearest_are_those_of_a_plain_search(
    catalogue: list[list[str]], data: st.DataObject
) -> None:
    n, of = len(catalogue), tokens_of(catalogue)
    nearest = OfNearest(of)
    since = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    weight = {t: math.log(n / sum(t in tokens for tokens in catalogue)) for t in "abcde"
              if any(t in tokens for tokens in catalogue)}  # fmt: skip

    def alike(a: int, b: int) -> float:
        dot = sum(weight[t] ** 2 for t in set(catalogue[a]) & set(catalogue[b]))
        lengths = [math.sqrt(sum(weight[t] ** 2 for t in catalogue[i])) for i in (a, b)]
        return dot / math.prod(lengths) if dot > 0 else 0.0

    for now in range(4):
        lends = since < now
        found = nearest.of(~lends, lends, table(n))
        for item in np.flatnonzero(~lends).tolist():
            others = [i for i in range(n) if lends[i] and alike(item, i) > 0]
            # Of equals those that were known first.
            others.sort(key=lambda i: (-round(alike(item, i), 9), since[i], i))
            best = others[:NEAREST]
            wanted = table(n)[best].mean(axis=0) if best else np.zeros(3)
            np.testing.assert_allclose(found[item], wanted, rtol=1e-5, atol=1e-6)
        assert not found[lends].any()
