"""Words that many messages need."""

from streamer.wording import ago, amounts, counted, ranges, wrapped


def test_one_of_a_kind_has_no_s() -> None:
    assert counted(1, "record") == "1 record"
    assert counted(0, "record") == "0 records"
    assert counted(1200, "index", "indices") == "1,200 indices"
    assert amounts(item=1, arc=20) == "1 item, 20 arcs"


def test_lines_break_at_spaces_and_what_is_long_stays_whole() -> None:
    path = "/a-long/" + "x" * 90
    lines = wrapped("words " * 30 + path).splitlines()
    assert all(len(line) <= 80 for line in lines if path not in line)
    assert lines[-1] == f"    {path}"


def test_a_span_is_told_in_a_unit_that_says_enough() -> None:
    told = [ago(seconds) for seconds in (0, 119.4, 120, 7199, 7200, 172_799, 172_800, 1e9)]
    assert told == [
        *("0 s ago", "119 s ago", "2 min ago", "119 min ago"),
        *("2 h ago", "47 h ago", "2 d ago", "11,574 d ago"),
    ]


def test_neighbours_among_numbers_are_told_by_their_ends() -> None:
    assert ranges([]) == ""
    assert ranges([7]) == "7"
    assert ranges([9, 3, 4, 8, 1]) == "1, 3-4, 8-9"
