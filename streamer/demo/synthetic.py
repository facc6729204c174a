"""The synthetic shop into the topics `items` and `clicks`: a stream to try a worker with.

Its visits are of the configured `session.gap`: a visitor clicks every few seconds, and there are so
many users that nobody comes back before the gap has passed.
"""

import signal
import sys
import time
from itertools import islice

from streamer.demo.shop import CLICKS_A_VISIT, Shop
from streamer.errors import ConfigError, WalkstreamError
from streamer.files.delivery import (
    INTERRUPT_SECONDS,
    Delivery,
    Display,
    Pace,
    refuse_foreign_clicks,
)
from streamer.settings.sections import Config

RATE = 200.0
CLICK_SECONDS = 5.0
"""Between two clicks of a visitor, on average."""
MOST_USERS = 20_000_000
"""Taken without being asked: they take 120 MB."""
DRIFT = 0.002
HELD_BACK = 0.1
"""The share of the products that arrive while it runs."""
ARRIVAL_SECONDS = 10.0
TICK_SECONDS = 0.005
SLOW = 0.95
"""Below this share of the rate it says that it could not keep up."""


def run(
    config: Config,
    rate: float = RATE,
    seconds: float | None = None,
    products: int = 300,
    users: int | None = None,
    seed: int = 1,
    bots: float = 0.0,
    malformed: float = 0.0,
) -> None:
    """Sends the products, then about `rate` clicks a second until `seconds` are over or Ctrl-C.

    Without `users` there are as many as `session.gap` asks for. Raises `ConfigError` before
    anything is sent, `WalkstreamError` if a record was not delivered.
    """
    refuse_foreign_clicks(config.clicks)
    gap = config.session.gap / 1000
    present = max(10, round(rate * CLICK_SECONDS))
    enough = present + round(1.5 * gap * rate / CLICKS_A_VISIT)
    users = users or min(enough, MOST_USERS)
    try:
        shop = Shop(
            seed, products, users=users, present=present, drift=DRIFT,
            held_back=min(round(HELD_BACK * products), max(0, products - 15)),
            arrive_every=round(ARRIVAL_SECONDS * rate) or 1, bots=bots, malformed=malformed,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"there is no such shop: {error}") from error
    records = shop.records(lambda: int(time.time() * 1000))
    opening = list(islice(records, shop.opening))
    topics = {"items": config.topics.items, "clicks": config.topics.clicks}
    delivery = Delivery(config, *topics.values())
    if users < enough:
        print(
            f"walkstream: at {rate:g} clicks a second, {users:,} users are back before session.gap "
            f"({gap:g} s) has passed, and their visits become one session; {enough:,} would keep "
            "them apart",
            file=sys.stderr,
        )
    if bots:
        seconds_to_see = config.session.max_events * shop.bots / (rate * bots)
        print(
            f"walkstream: {shop.bots} of the users {'is a bot' if shop.bots == 1 else 'are bots'}; "
            f"a worker leaves out what comes after {config.session.max_events:,} clicks of a "
            f"session (session.max_events), here from about {seconds_to_see:,.0f} s on",
            file=sys.stderr,
        )
    # Whoever stops it, the summary is printed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    slow = False
    try:
        for record in opening:
            delivery.send(topics[record.topic], record.key, record.value)
        delivery.flush()
        total = None if seconds is None else round(rate * seconds)
        with Display(topics["clicks"], total) as display:
            pace, clicks, began = Pace(rate), 0, time.monotonic()
            while seconds is None or time.monotonic() - began < seconds:
                due = pace.due()
                for record in islice(records, due):
                    delivery.send(topics[record.topic], record.key, record.value)
                clicks += due
                delivery.wait(TICK_SECONDS)
                display.deliver(clicks, delivery.delivered)
            slow = clicks < SLOW * rate * (time.monotonic() - began)
        delivery.flush()
    except KeyboardInterrupt:
        delivery.flush(INTERRUPT_SECONDS)
    except WalkstreamError as error:
        raise WalkstreamError(f"{error}\n{delivery.summary()}") from error
    print(delivery.summary())
    if slow:
        print(f"{rate:,.0f} a second were asked for: more than this process or the broker can do")
    delivery.require_all()
