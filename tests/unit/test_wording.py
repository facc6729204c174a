"""Words that many messages need."""

from streamer.wording import amounts, counted, wrapped


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
