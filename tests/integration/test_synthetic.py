import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from streamer.decode.events import Decoder
from streamer.demo import synthetic
from streamer.errors import ConfigError
from streamer.settings.sections import Config
from tests.integration.published import PARTITIONS, read, with_topics


@pytest.fixture
def config(kafka: str) -> Config:
    return with_topics(kafka)


def test_a_synthetic_stream_has_the_items_and_clicks_as_they_are_now(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    began_ms = time.time() * 1000
    synthetic.run(config, rate=400, seconds=3, products=100, malformed=0.1, bots=0.1)
    items = read(config, config.topics.items, 1)
    # A tenth is held back for later.
    assert len({message.key() for message in items}) == 90
    clicks = read(config, config.topics.clicks, PARTITIONS)
    assert len(clicks) == pytest.approx(1200, rel=0.15)
    decoded = Decoder(config.clicks, config.events)(
        [m.key() for m in clicks], [m.value() for m in clicks], [m.timestamp()[1] for m in clicks]
    )
    assert len(decoded.bad) / len(clicks) == pytest.approx(0.1, abs=0.04)
    bots = sum(user.startswith("bot-") for user in decoded.clicks.users)
    assert bots / len(decoded.clicks) == pytest.approx(0.1, abs=0.04)
    assert set(decoded.clicks.items) <= {(message.key() or b"").decode() for message in items}
    assert decoded.clicks.times.min() >= began_ms
    assert decoded.clicks.times.max() <= time.time() * 1000
    assert decoded.clicks.times.max() - decoded.clicks.times.min() > 2500
    out = capsys.readouterr().out
    assert f"{len(items) + len(clicks):,} records delivered" in out
    assert "0 failed" in out


def test_no_synthetic_user_is_back_before_the_session_gap(config: Config) -> None:
    synthetic.run(config, rate=1000, seconds=3)
    visits: dict[str, set[str]] = {}
    for message in read(config, config.topics.clicks, PARTITIONS):
        click = json.loads(message.value() or b"")
        visits.setdefault(click["user_id"], set()).add(click["item_id"])
    assert max(map(len, visits.values())) <= 8


def test_it_is_told_when_a_worker_begins_to_leave_a_synthetic_bot_out(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(config, rate=200, seconds=0.1, bots=0.05)
    told = capsys.readouterr().err
    assert "1 of the users is a bot" in told
    assert "after 500 clicks of a session (session.max_events), here from about 50 s on" in told


def test_too_few_synthetic_users_are_told(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(config, rate=50, seconds=0.1, users=100)
    assert "100 users are back before session.gap (1800 s) has passed" in capsys.readouterr().err


def test_a_high_synthetic_rate_is_reached(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.run(config, rate=5000, seconds=2)
    assert len(read(config, config.topics.clicks, PARTITIONS)) > 7000
    assert "1800 s" not in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_synthetic_stream_that_is_stopped_tells_what_was_delivered(
    config: Config, stop: signal.Signals
) -> None:
    program = (
        "import sys\n"
        "from streamer.demo import synthetic\n"
        "from streamer.settings.sections import Config, TopicSettings\n"
        "servers, clicks, items = sys.argv[1:]\n"
        "topics = TopicSettings(clicks=clicks, items=items)\n"
        "synthetic.run(Config(kafka={'bootstrap.servers': servers}, topics=topics))\n"
    )
    servers = str(config.kafka["bootstrap.servers"])
    process = subprocess.Popen(
        [sys.executable, "-c", program, servers, config.topics.clicks, config.topics.items],
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while not read(config, config.topics.clicks, PARTITIONS):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(stop)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    sent = len(read(config, config.topics.clicks, PARTITIONS))
    sent += len(read(config, config.topics.items, 1))
    # A signal that comes just after a record was handed over leaves that one uncounted.
    assert any(f" {told:,} records delivered" in out for told in (sent, sent - 1)), (sent, out)


def test_a_synthetic_stream_needs_both_topics(config: Config) -> None:
    topics = replace(config.topics, items="no-such-topic")
    with pytest.raises(ConfigError, match="topic no-such-topic does not exist"):
        synthetic.run(replace(config, topics=topics), seconds=0.1)
    assert read(config, config.topics.clicks, PARTITIONS) == []


def test_a_shop_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="hold 15 to 7500 products, not 8000"):
        synthetic.run(Config(kafka={}), products=8000)
