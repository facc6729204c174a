"""The lines of the README that keep an index fresh do so."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from streamer.demo.shop import Shop
from tests.support import START_MS, App, as_records, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1200))


def example(servers: str, topic: str) -> str:
    text = README.partition("<!-- example -->\n```python\n")[2].partition("```")[0]
    return (
        text.replace("127.0.0.1:9092", servers)
        .replace('"item-vectors"', f'"{topic}"')
        .replace("2 * 64", "2 * 16")
    )


def test_an_index_follows_vectors_that_come_and_go(kafka: str, tmp_path: Path) -> None:
    settings = {"topics.partitions": 2, "commit.seconds": 0.2, "model.attribute_slots": 1}
    with App(kafka, tmp_path, settings) as app:
        worker = app.worker()
        app.publish(CLICKS)
        worker.until(app.caught_up, "all clicks committed")
        here: dict[str, Any] = {}
        exec(example(kafka, app.config.topics.item_vectors), here)
        items = {message.key().decode() for message in app.read(app.config.topics.item_vectors)}  # type: ignore[union-attr]

        def fresh() -> bool:
            here["refresh"]()
            return bool(here["index"].ntotal == len(items))

        wait_until(fresh, "all items in the index")
        item = sorted(items)[0]
        vectors = here["vectors"]
        v, u = vectors[item]
        scores = {o: v @ vv + v @ uu + u @ vv for o, (vv, uu) in vectors.items() if o != item}
        wanted = sorted(scores, key=lambda other: -scores[other])[:5]
        found = here["clicked_next"](item, 5)
        assert [name for name, _ in found] == wanted
        assert np.allclose([s for _, s in found], [scores[name] for name in wanted], atol=1e-5)

        app.describe([(wanted[0].encode(), None)])
        items.discard(wanted[0])
        wait_until(fresh, "a retired item to leave the index")
        assert wanted[0] not in [name for name, _ in here["clicked_next"](item, 60)]
        here["consumer"].close()
        worker.stop()
