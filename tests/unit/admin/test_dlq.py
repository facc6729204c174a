from rich.console import Console

from streamer.admin.dlq import Count, Tally


def test_the_table_has_a_row_for_each_topic_and_fits_in_80_columns() -> None:
    """However many partitions and reasons there are."""
    reasons = ("undecodable", "bad_field", "unknown_type")
    clicks = {
        (reason, "shop.page-views.v2", str(partition)): Count(1000 + partition, 0, 1_000 * at)
        for at, reason in enumerate(reasons)
        for partition in range(32)
    }
    tally = Tally(clicks | {("bad_id", "items", "0"): Count(7, 5_000, 9_000)})
    console = Console(width=80)
    with console.capture() as captured:
        console.print(tally.table())
    lines = [line.split() for line in captured.get().splitlines() if line.strip()]
    assert lines[0] == ["came", "from", "letters", "first", "and", "last", "reasons"]
    assert lines[2:] == [
        ["items", "7", "1970-01-01T00:00:05Z", "bad_id", "7"],
        ["1970-01-01T00:00:09Z"],
        ["shop.page-views.v2", "97,488", "1970-01-01T00:00:00Z", "undecodable", "32,496"],
        ["1970-01-01T00:00:02Z", "bad_field", "32,496"],
        ["unknown_type", "32,496"],
    ]
