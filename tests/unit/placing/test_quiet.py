import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.placing.quiet import parsed
from core.settings import DAY_MS

MINUTE = 60_000
MINUTES = st.integers(0, 24 * 60 - 1)


def spelled(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@given(begin=MINUTES, end=MINUTES, day=st.integers(0, 30_000), at=st.integers(0, DAY_MS - 1))
def test_the_hours_are_those_that_a_clock_passes_from_one_time_to_the_other(
    begin: int, end: int, day: int, at: int
) -> None:
    if begin == end:
        return
    quiet = parsed(f"{spelled(begin)}-{spelled(end)}")
    length = (end - begin) * MINUTE % DAY_MS
    assert quiet.holds(day * DAY_MS + at) == ((at - begin * MINUTE) % DAY_MS < length)


@given(
    begin=MINUTES, end=MINUTES, day=st.integers(0, 30_000), at=st.integers(0, DAY_MS - 1),
    later=st.integers(0, 3 * DAY_MS),
)  # fmt: skip
def test_a_step_is_over_them_where_all_of_a_day_are_in_it(
    begin: int, end: int, day: int, at: int, later: int
) -> None:
    if begin == end:
        return
    before = day * DAY_MS + at
    length = (end - begin) * MINUTE % DAY_MS
    begins = [(day + n) * DAY_MS + begin * MINUTE for n in range(5)]
    wanted = any(before <= one and one + length <= before + later for one in begins)
    quiet = parsed(f"{spelled(begin)}-{spelled(end)}")
    assert quiet.lies_between(before, before + later) == wanted


def test_no_hours_are_all_hours() -> None:
    assert all(parsed("").holds(time) for time in (0, 1, DAY_MS - 1, 1_700_000_000_000))


@pytest.mark.parametrize("wrong", ["2-5", "02:00", "24:00-05:00", "02:60-05:00", "2:00-5:00", "x"])
def test_what_is_no_window_is_told(wrong: str) -> None:
    with pytest.raises(ValueError, match="02:00-05:00"):
        parsed(wrong)
    with pytest.raises(ValueError, match="no time"):
        parsed("03:00-03:00")
