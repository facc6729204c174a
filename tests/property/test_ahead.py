"""Clicks dated far ahead of the clicks around them, for any log."""

import json
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.settings import DAY_MS, Duration
from streamer.decode.ahead import WINDOW, Window
from streamer.decode.events import MANY_BAD
from streamer.decode.guarded import GuardedDecoder
from streamer.settings.sections import ClickSettings, EventSettings

START, HOUR_MS = 1_760_000_000_000, 3_600_000
AHEAD = int(ClickSettings().max_ahead)
YEAR_2099 = 4_070_908_800_000
seeds = st.integers(0, 2**32)


def decoder(most: int = AHEAD) -> GuardedDecoder:
    return GuardedDecoder(ClickSettings(max_ahead=Duration(most)), EventSettings())


def record(*times: int) -> bytes:
    """A record of clicks at these times."""
    lines = [{"user_id": "u", "item_id": f"i{n}", "ts": time} for n, time in enumerate(times)]
    return "\n".join(map(json.dumps, lines)).encode()


def refused(times: list[int], sizes: list[int], decode: GuardedDecoder | None = None) -> list[int]:
    """Which clicks of a log are dead letters, read in batches of these sizes over and over."""
    decode, out, at, turn = decode or decoder(), [], 0, 0
    while at < len(times):
        batch = times[at : at + sizes[turn % len(sizes)]]
        values = [record(time) for time in batch]
        decoded = decode([None] * len(batch), values, [-1] * len(batch))
        kept = set(decoded.records.tolist())
        out += [at + bad.record for bad in decoded.bad]
        assert {bad.reason.value for bad in decoded.bad} <= {"bad_time"}
        assert kept | {bad.record for bad in decoded.bad} == set(range(len(batch)))
        at, turn = at + len(batch), turn + 1
    return out


def dense(rng: Random, n: int = 200) -> list[int]:
    """A log with a click every few minutes, of which some come late by up to years."""
    late = rng.choice([0.0, 0.1, 0.4])
    times, now = [], START
    for _ in range(n):
        now += rng.randrange(10 * 60_000)
        lag = rng.choice([HOUR_MS, 20 * DAY_MS, 900 * DAY_MS]) if rng.random() < late else 0
        times.append(now - lag)
    return times


@given(seeds, st.lists(st.integers(WINDOW, 90), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_outliers_below_the_majority_change_nothing_but_their_own_dead_letters(
    seed: int, sizes: list[int]
) -> None:
    rng = Random(seed)
    times = dense(rng)
    assert refused(times, sizes) == []
    # Beside clicks that come late, fewer others may be ahead.
    most = (WINDOW - 1) // 2 if times == sorted(times) else 1
    bad: list[int] = []
    for begin in range(0, len(times), 2 * WINDOW):
        block = range(begin, min(begin + WINDOW, len(times)))
        bad += rng.sample(block, min(rng.randint(1, most), (len(block) - 1) // 2))
    now = max(times)
    for at in bad:
        far = 4000 * DAY_MS if times != sorted(times) else 60 * DAY_MS
        times[at] = rng.choice([YEAR_2099, now + far + rng.randrange(10**9)])
    assert refused(times, sizes) == sorted(bad)


@given(seeds, st.integers(WINDOW, 500))
@settings(max_examples=30, deadline=None)
def test_what_is_refused_does_not_depend_on_batches_nor_on_a_restart(seed: int, cut: int) -> None:
    rng = Random(seed)
    times = [t + rng.choice([0] * 9 + [30 * DAY_MS]) for t in dense(rng, 500)]
    whole = refused(times, [1000])
    assert refused(times, [WINDOW, 1, 7]) == whole
    before = decoder()
    first = refused(times[:cut], [64], before)
    after = decoder()
    after.remember(before.windows)
    assert first + [cut + at for at in refused(times[cut:], [64], after)] == whole


def test_a_true_gap_costs_half_a_window_and_is_followed() -> None:
    rng = Random(1)
    before = [START + n * HOUR_MS for n in range(100)]
    times = before + [before[-1] + 60 * DAY_MS + n * HOUR_MS for n in range(100)]
    lost = refused(times, [50])
    assert lost == list(range(100, 100 + WINDOW // 2 + 1))
    # Sent once more at the end, as `dlq replay` does, they are good.
    assert refused(times + [times[at] for at in lost], [50]) == lost
    # Half of a batch of late clicks does not set the clock back.
    late = [START + rng.randrange(100 * HOUR_MS) for _ in range(3 * WINDOW)]
    assert refused([*times, *late, times[-1] + HOUR_MS], [50]) == lost


def test_a_model_that_has_learned_is_not_blind_to_the_first_records_of_a_partition() -> None:
    decode = decoder()
    assert refused([YEAR_2099], [1], decode) == [], "of a new model nothing is known"
    decode = decoder()
    decode.remember({0: Window.at(START)})
    ahead = [YEAR_2099] * (WINDOW // 2)
    assert refused(ahead, [1], decode) == list(range(len(ahead)))
    assert refused([START + n * HOUR_MS for n in range(WINDOW)], [1], decode) == []
    # The log has truly moved on: it is followed, as by a window that has seen it all.
    late = decoder()
    late.remember({0: Window.at(START - 60 * DAY_MS)})
    assert refused([START] * 100, [1], late) == list(range(WINDOW // 2 + 1))


@pytest.mark.parametrize("days", [1, 10, 40])
def test_sparse_logs_lose_nothing(days: int) -> None:
    rng = np.random.default_rng(days)
    for gaps in (np.full(400, 1.0), rng.uniform(0.5, 1.5, 400), rng.exponential(1.0, 400)):
        times = START + np.cumsum(gaps * days * DAY_MS).astype(np.int64)
        assert refused(times.tolist(), [WINDOW, 1, 3]) == []


def test_a_first_record_that_is_dated_ahead_is_refused_rather_than_all_others() -> None:
    times = [YEAR_2099, *(START + n for n in range(5))]
    assert refused(times, [6]) == [0]
    # Alone it is believed: nobody says otherwise, and clicks before it are late ones.
    assert refused(times, [1]) == []
    # What more than half of the records say is believed as well.
    assert refused([*([START] * 16), *([YEAR_2099] * 17)], [33]) == []
    assert refused(times, [6], decoder(most=0)) == []


def test_a_record_of_many_clicks_counts_once_and_keeps_those_that_are_good() -> None:
    values = [record(START + n) for n in range(WINDOW)]
    values += [
        record(START, YEAR_2099, START + 1),
        record(*[YEAR_2099] * MANY_BAD),
        record(START + 99),
    ]
    stamps = [YEAR_2099] * len(values)
    decoded = decoder()([None] * len(values), values, stamps)
    first, *others = decoded.bad
    assert (first.record, first.part, first.reason.value) == (WINDOW, 1, "bad_time")
    assert first.value == values[WINDOW].split(b"\n")[1]
    assert "its time, 2099-01-01T00:00:00Z, is" in first.message
    assert "days ahead of 2025-10-09T" in first.message
    assert "clicks.max_ahead is 14 days" in first.message
    assert [bad.record for bad in others] == [WINDOW + 1] * MANY_BAD
    assert decoded.records.tolist() == [*range(WINDOW), WINDOW, WINDOW, WINDOW + 2]
    assert decoded.clicks.times.tolist()[-3:] == [START, START + 1, START + 99]


def test_each_partition_has_neighbours_of_its_own() -> None:
    n = 4 * WINDOW
    times = [START + (at % 2) * 100 * DAY_MS + at for at in range(n)]
    times[n // 2] = START + 60 * DAY_MS
    decoded = decoder()([None] * n, [record(t) for t in times], [-1] * n, np.arange(n) % 2)
    assert [bad.record for bad in decoded.bad] == [n // 2]
