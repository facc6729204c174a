"""Files of vectors, from the topic alone and from the folder of the worker that wrote it."""

from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from streamer.decode.deadletter import Headers
from streamer.demo.shop import Shop
from streamer.errors import Refused, WalkstreamError
from streamer.export import run
from streamer.export.published import Published, from_folder, from_topic
from streamer.state import commits
from streamer.vectors import CENTROIDS
from tests.support import START_MS, App, as_records

CLICKS = as_records(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 600))


def assert_equal(a: Published, b: Published) -> None:
    assert (a.items, a.space) == (b.items, b.space)
    # The topic has six decimals, the folder half precision where it differs from the row.
    for name in ("vectors", "contexts", "norms"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-3, err_msg=name)
    for name in ("clusters", "updates", "versions"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("fmt", ["json", pytest.param("msgpack", marks=pytest.mark.long)])
def test_topic_and_folder_tell_the_same(
    kafka: str, tmp_path: Path, fmt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"topics.partitions": 3, "commit.seconds": 0.2, "publish.format": fmt}
    with App(kafka, tmp_path, settings) as app:
        app.publish(CLICKS[:300])
        app.run_to_end()
        before = from_topic(app.config, None)
        folder = from_folder(app.state, None)
        assert_equal(folder, before)
        assert folder.commit >= before.commit  # the last commits may have published nothing
        assert from_folder(app.state, folder.commit).commit == folder.commit
        app.publish(CLICKS[300:])
        app.run_to_end()
        after = from_topic(app.config, None)
        assert after.commit > before.commit
        assert_equal(from_folder(app.state, None), after)
        # The topic still has what was there then: nothing compacts it so soon.
        then = from_topic(app.config, before.commit)
        assert_equal(then, before)
        assert then.later == len({*after.items} - {*before.items})
        with pytest.raises(WalkstreamError, match="has no vector as of commit 0"):
            from_topic(app.config, 0)
        run.run(app.config, tmp_path / "v.npz", None, None, None, "vector", None, "similar", False)
        assert f"as of commit {after.commit}" in capsys.readouterr().out
        arrays = np.load(tmp_path / "v.npz")
        assert arrays["items"].tolist() == after.items


@pytest.mark.parametrize("fmt", [pytest.param("json", marks=pytest.mark.long), "msgpack"])
def test_residuals_are_read_back_as_vectors_also_beside_full_ones(
    kafka: str, tmp_path: Path, fmt: str
) -> None:
    """Also where a worker writes residuals on top of what one wrote in full, and back."""
    settings = {
        "topics.partitions": 3, "commit.seconds": 0.2, "publish.format": fmt,
        "clusters.count": 3, "clusters.min_items": 20, "session.gap": "5m", "major.every": "10m",
        "residual.strength": 5,
    }  # fmt: skip
    with App(kafka, tmp_path, settings) as app:
        for part, form in enumerate(["residual", "full", "residual"]):
            app.publish(CLICKS[200 * part : 200 * part + 200])
            # At first there are no clusters yet.
            app.run_to_end(publish__form=form, clusters__min_items=20 if part else 1000)
            topic, folder = from_topic(app.config, None), from_folder(app.state, None)
            assert topic.items == folder.items
            cosine = np.einsum("nd,nd->n", topic.vectors, folder.vectors)
            assert (cosine > 0.999).all()
            for name in ("contexts", "norms"):
                a, b = getattr(topic, name), getattr(folder, name)
                np.testing.assert_allclose(a, b, atol=0.01, err_msg=name)
            np.testing.assert_array_equal(topic.clusters, folder.clusters)
        assert (topic.clusters >= 0).any()
        read = app.read(app.config.topics.item_vectors)
        keys = {(m.key() or b"") for m in read if (m.key() or b"").startswith(CENTROIDS)}
        assert CENTROIDS + b"1" in keys


def test_what_is_no_vector_of_the_app_is_refused(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, {"topics.partitions": 1, "commit.seconds": 0.2}) as app:
        app.publish(CLICKS[:300])
        app.run_to_end()
        topic, producer = app.config.topics.item_vectors, Producer({"bootstrap.servers": kafka})
        mark: Headers = [("commit", commits.Mark(app.name, 9, "0").packed)]
        producer.produce(topic, b"{}", b"odd", headers=mark)
        producer.flush(10)
        with pytest.raises(Refused, match="the record of 'odd' is no vector"):
            from_topic(app.config, None)
        producer.produce(topic, msgspec.json.encode({}), b"odd")
        producer.flush(10)
        with pytest.raises(Refused, match="of no commit"):
            from_topic(app.config, None)
