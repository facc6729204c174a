"""Topics that change under a running worker: what was learned of the new one, and what counts."""

import signal
from contextlib import closing
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from streamer.decode.ahead import Window
from tests.integration.models import CLICKS, EXACT, counted, recreate, refused
from tests.support import App


def set_offsets(app: App, offset: int) -> None:
    """What a commit does that was under way when the topic was deleted."""
    settings = {"bootstrap.servers": app.servers}
    producer = Producer({**settings, "transactional.id": f"{app.name}-late"})
    producer.init_transactions(30)
    producer.begin_transaction()
    where = [TopicPartition(*p, offset) for p in app.partitions(app.config.topics.clicks)]
    with closing(Consumer({**settings, "group.id": app.name})) as member:
        producer.send_offsets_to_transaction(where, member.consumer_group_metadata(), 30)
    producer.commit_transaction(30)


def clicks_done(app: App) -> dict[tuple[str, int], tuple[int, int, Window | None]]:
    """What of the clicks is in a commit: later commits, which only learn from it, leave it so."""
    return {p: (done.offset, done.time, done.window) for p, done in app.progress().items()}


def test_clicks_that_were_created_again_under_a_worker_count_once(
    kafka: str, tmp_path: Path
) -> None:
    """The new topic has clicks at the offset where the worker was in the old one: it reads on."""
    with App(kafka, tmp_path, {**EXACT, "kafka.session.timeout.ms": 20_000}) as app:
        clicks = app.config.topics.clicks
        worker = app.worker()
        app.publish(CLICKS[:100])
        worker.until(app.caught_up, "the first clicks")
        before = clicks_done(app)
        worker.popen.send_signal(signal.SIGSTOP)
        recreate(app, clicks)
        app.publish(CLICKS[100:1100])
        worker.popen.send_signal(signal.SIGCONT)
        refused(worker, f"topic {clicks} was deleted and created again", "was committed", code=1)
        assert clicks_done(app) == before, "nothing of the new topic is in a commit"
        set_offsets(app, 3)
        refused(app.worker(), f"{clicks}: its id was", "--accept-loss")
        rehearsal = app.worker("--dry-run", "--accept-loss")
        assert rehearsal.wait() == 0, rehearsal.output
        worker = app.worker("--accept-loss")
        worker.until(app.caught_up, "the clicks of the new topic")
        worker.stop()
        assert counted(app) == 1100
