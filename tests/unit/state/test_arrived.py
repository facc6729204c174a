"""What a folder takes of the graph's rows that others have written, record by record."""

from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Message

from core.graph.written import Node
from streamer.errors import Refused
from streamer.settings import load as configs
from streamer.state import packing, records
from streamer.state.commits import Mark
from streamer.state.records import Space
from streamer.state.store import Store
from streamer.worker.arrived import Arrived
from streamer.worker.later import Later
from streamer.worker.sequence import Commits
from streamer.worker.strangers import Strangers
from tests.unit.state.made import SETTINGS

Headers = list[tuple[str, str | bytes | None]]

CONFIG = configs.load(None, ["app.name=shop"], {})
TOPIC = CONFIG.topics.model_state
PARTITIONS, NUMBER, ITEM = 4, 9, b"lamp"
KEY = records.graph_key(ITEM)
PLACE = records.place(KEY, PARTITIONS)
ROW = packing.pack_node(Node(NUMBER, 1, 0, 5, 1.0, 0, 1000, False, [], b""))
OTHERS: Headers = [("commit", Mark("shop", NUMBER, "1").packed)]
OWN: Headers = [("commit", Mark("shop", NUMBER, "0").packed)]
NOTHING: dict[bytes, bytes | None] = {}


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    store = Store(tmp_path / "state")
    store.set_meta({records.SPACE: msgspec.msgpack.encode(Space.of(SETTINGS, PARTITIONS))})
    return store


@pytest.mark.parametrize(
    ("value", "headers", "partition", "taken", "is_strange"),
    [
        pytest.param(ROW, OTHERS, PLACE, {ITEM: ROW}, False, id="a row"),
        pytest.param(None, OTHERS, PLACE, {ITEM: None}, False, id="its deletion"),
        pytest.param(ROW, OWN, PLACE, NOTHING, False, id="a row of its own, which it has"),
        pytest.param(
            None, OTHERS, (PLACE + 1) % PARTITIONS, NOTHING, False,
            id="a deletion by a repair, where no row should be",
        ),
        pytest.param(ROW, [], PLACE, NOTHING, True, id="a row of no commit"),
        pytest.param(None, [], PLACE, NOTHING, True, id="a deletion of no commit"),
        pytest.param(b"garbage", OTHERS, PLACE, NOTHING, True, id="garbage"),
        pytest.param(
            None, [*OTHERS, ("version", b"x")], PLACE, NOTHING, True, id="garbage for a version"
        ),
    ],
)  # fmt: skip
def test_rows_of_the_graph_are_taken_and_what_is_none_is_told(
    folder: Store, value: bytes | None, headers: Headers, partition: int,
    taken: dict[bytes, bytes | None], is_strange: bool,
) -> None:  # fmt: skip
    commits, strangers = Commits("model[0]", "0"), Strangers()
    commits.begin(NUMBER)
    arrived = Arrived(CONFIG, folder, commits, strangers, Later(folder))
    arrived.take((TOPIC, partition), [Message(TOPIC, partition, 3, KEY, value, headers)])
    assert arrived.graph == taken
    if is_strange:
        with pytest.raises(Refused, match="nothing that a worker writes"):
            strangers.judge()
    else:
        strangers.judge()


def test_an_older_row_is_not_taken(folder: Store) -> None:
    newer = packing.pack_node(Node(NUMBER + 1, 1, 0, 5, 1.0, 0, 1000, False, [], b""))
    folder.write_entries({"graph": [(ITEM, newer)]})
    arrived = Arrived(CONFIG, folder, Commits("model[0]", "0"), Strangers(), Later(folder))
    arrived.take((TOPIC, PLACE), [Message(TOPIC, PLACE, 3, KEY, ROW, OTHERS)])
    assert arrived.graph == {}
