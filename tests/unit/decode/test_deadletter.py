import json

from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from streamer.decode.deadletter import MAX_BYTES, DeadLetter, as_json_line, headers
from streamer.decode.events import Bad, Reason

NOW = 1_700_000_000_000


def message(key: bytes | None, value: bytes | None) -> Message:
    return Message(
        topic="clicks", partition=3, offset=42, key=key, value=value,
        timestamp=(TIMESTAMP_CREATE_TIME, NOW),
    )  # fmt: skip


def test_a_dead_letter_carries_where_it_came_from() -> None:
    bad = Bad(0, None, b"{", Reason.BAD_ID, "item_id is é\ud800")
    assert headers("clicks", 3, 42, -1, bad) == [
        ("source.topic", b"clicks"),
        ("source.partition", b"3"),
        ("source.offset", b"42"),
        ("source.timestamp", b"-1"),
        ("error.class", b"bad_id"),
        ("error.message", "item_id is é\\ud800".encode()),
    ]


def test_a_record_goes_on_as_it_came() -> None:
    bad = Bad(0, None, b"{", Reason.UNDECODABLE, "why")
    letter = DeadLetter.of(message(b"k", b"{"), bad)
    assert (letter.key, letter.value) == (b"k", b"{")
    assert letter.headers == headers("clicks", 3, 42, NOW, bad)
    assert "source.part" not in dict(letter.headers)


def test_a_part_goes_on_alone_with_its_number() -> None:
    letter = DeadLetter.of(message(b"k", b"[1,2]"), Bad(0, 1, b"2", Reason.UNDECODABLE, "why"))
    assert (letter.key, letter.value) == (b"k", b"2")
    assert dict(letter.headers)["source.part"] == b"1"


def test_a_tombstone_has_no_value() -> None:
    letter = DeadLetter.of(message(b"k", None), Bad(0, None, None, Reason.UNDECODABLE, "why"))
    assert (letter.key, letter.value) == (b"k", None)


def test_what_no_record_can_hold_is_cut_and_says_so() -> None:
    value = b"x" * (MAX_BYTES + 1)
    letter = DeadLetter.of(message(b"k", value), Bad(0, None, value, Reason.OVERSIZED, "why"))
    assert letter.value is not None
    assert 0 < len(letter.value) < MAX_BYTES
    assert dict(letter.headers)["source.bytes"] == str(MAX_BYTES + 2).encode()


def test_a_dead_letter_line_holds_any_bytes() -> None:
    bad = Bad(0, 2, b"\xff", Reason.UNDECODABLE, "why")
    line = as_json_line("f.jsonl", 0, 1, NOW, b"k\n", bad)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "source.topic": "f.jsonl",
        "source.partition": 0,
        "source.offset": 1,
        "source.timestamp": NOW,
        "source.part": 2,
        "error.class": "undecodable",
        "error.message": "why",
        "key": "k\n",
        "value.base64": "/w==",
    }
