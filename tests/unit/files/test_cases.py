"""Inputs that once went wrong: each is taken right, or a message says what to do about it."""

from pathlib import Path

import pytest

from tests.unit.conftest import Run

DRY, REPLAY, EVALUATE = "publish --dry-run", "replay", "evaluate"
NAMED = "--columns user_id=visitorid,item_id=itemid,ts=timestamp,event_type=event"
ITEMS = f"{DRY} --items"

CASES = [
    # file, command and options, exit code, what is said
    ("evaluate-crash-60.csv", f"{EVALUATE} --set round.max_events=2", None, ["note: 48.3% of the"]),
    ("evaluate-crash-60.csv", f"{REPLAY} --sort", 0, ["60 clicks of 60 records", "11 items"]),
    ("late.csv", DRY, 0, ["90.9% of the clicks come late", "--sort"]),
    ("late.csv", REPLAY, None, ["90.9% of the clicks come late", "--sort"]),
    ("late.csv", f"{REPLAY} --sort", 0, ["4,000 clicks", "60 items, 120 arcs"]),
    ("late.csv", EVALUATE, None, ["90.9% of the clicks come late", "--sort"]),
    ("sorted.csv", REPLAY, 0, ["4,000 clicks", "60 items, 120 arcs"]),
    ("seconds-as-ms.csv", DRY, 2, ["0 users", "in 1970 as ms, and in 2026 as s; is it --time s"]),
    ("seconds-as-ms.csv", REPLAY, 1, ["nothing was learned", "is it --time s"]),
    ("seconds-as-ms.csv", EVALUATE, 1, ["nothing to rank", "is it --time s"]),
    ("seconds-as-ms.csv", f"{REPLAY} --time s", 0, ["2 clicks of 2 records"]),
    ("mixed-units.csv", DRY, 0, ["4 records: 1 user, 2 items", "2 undecodable", "or auto?"]),
    ("mixed-units.csv", f"{DRY} --time auto", 0, ["4 records: 1 user, 4 items", "2026-09-21"]),
    ("iso-many.csv", f"{DRY} --time iso", 0,
     ["12 records: 1 user, 9 items", "line 8: ts is '29/03/2026 03:00'", "in 2026 as s"]),
    ("iso-many.csv", f"{DRY} --time auto", 0, ["12 records: 1 user, 10 items"]),
    ("tsstr.jsonl", DRY, 0, ["records: "]),
    ("isolocal.jsonl", DRY, None, ["--time iso"]),
    ("ga4.jsonl", DRY, None, ["none of the first 40 lines could be read"]),
    ("segment.jsonl", DRY, None, ["none of the first 40 lines could be read"]),
    ("debezium.jsonl", DRY, None, ["none of the first 40 lines could be read"]),
    ("items-null.jsonl", ITEMS, 0, ["1 item"]),
    ("items-bool.jsonl", ITEMS, 0, ["1 item"]),
    ("items-nested.jsonl", ITEMS, 0, ["1 item"]),
    ("items-flat.jsonl", ITEMS, 0, ["1 item"]),
    ("esc.csv", DRY, 2, ["\\u001b]0;owned", "no column 'item_id'"]),
    ("esc2.csv", DRY, 0, ["3 records: 1 user, 2 items", "\\u001b[31mzz"]),
    ("esc3.csv", REPLAY, 0, ["602 clicks of 602 records", "6 items, 10 arcs"]),
    ("excel-ids.csv", REPLAY, 1,
     ["ids that look shortened by a spreadsheet: 2", "a time that a spreadsheet shortened"]),
    ("float-ids.csv", REPLAY, 0, ["ids that end in .0: 4", "3 items, 2 arcs"]),
    ("null-users.csv", REPLAY, 1, ["the field is NULL, which --null lists", "5 undecodable"]),
    ("null-users.csv", f"{DRY} --null=", 0, ["6 records: 5 users", "1 undecodable"]),
    ("retailrocket.csv", DRY, 2, [NAMED]),
    ("retailrocket.csv", f"{DRY} {NAMED} --set events.weights.*=1", 0, ["3 records: 1 user, 1 i"]),
    ("retailrocket.csv", f"{DRY} --columns ts,user_id,event_type,item_id,_ "
     "--set events.weights.*=1", 0, ["3 records: 1 user", "looks like a header and was left out"]),
    ("recbole.inter", DRY, 2, ["is it --time s"]),
    ("recbole.inter", f"{REPLAY} --time s", 0, ["2 clicks of 2 records", "2 items"]),
    ("semicolon.csv", DRY, 0, ["2 records: 1 user, 2 items"]),
    ("semicolon.csv", f"{DRY} --delimiter ,", 2, ["--delimiter", "user_id;item_id;ts;weight"]),
    ("pipe.csv", DRY, 0, ["1 record: 1 user, 1 item"]),
    ("bom-middle.jsonl", REPLAY, 0, ["2 clicks of 2 records", "2 items"]),
    ("x.csv.zst", DRY, 0, ["4,000 records: 40 users, 60 items"]),
    ("x.csv.zst", REPLAY, 0, ["4,000 clicks", "60 items, 120 arcs"]),
    ("utf16.csv", DRY, 0, ["1 record: 1 user, 1 item"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "command", "code", "said"), CASES)
def test_each_case_is_right_or_says_what_to_do(
    tmp_path: Path, run: Run, shared_cases: Path, name: str, command: str, code: int | None,
    said: list[str],
) -> None:  # fmt: skip
    words = command.split()
    out = ["--out", tmp_path / "out"] if words[0] == REPLAY else []
    found, stdout, stderr = run(words[0], shared_cases / name, *words[1:], *out)
    told = stdout + stderr
    assert code is None or found == code, told
    assert "Traceback" not in told
    assert "\x1b" not in told
    assert not [text for text in said if text not in told], told


def test_every_case_is_tried(shared_cases: Path) -> None:
    names = {path.name for path in shared_cases.iterdir()} - {"README.md"}
    assert names == {name for name, *_ in CASES}
