"""What is told from records that no worker wrote, under the reserved keys of `model-state`."""

from typing import Any

import msgspec
import numpy as np
import pytest

from core.graph.written import Node
from core.ranking.fusion import Fusion
from core.settings import Settings
from streamer.state import packing, records
from streamer.state.commits import Manifest
from streamer.state.model_state import is_ours
from streamer.state.records import Progress, Space

WRITTEN = {
    records.SPACE: Space.of(Settings(), 2),
    records.MAJOR: 3,
    records.manifest_key("0"): Manifest(3, "app", "0", {}, 2),
    records.progress_key("clicks", 1): Progress(5, 1, 3, 2),
    records.items_key("items", 0): 7,
    records.version_key(1): 9,
}


@pytest.mark.parametrize("key", WRITTEN)
def test_only_what_has_the_shape_of_a_workers_record_is_taken_for_one(key: bytes) -> None:
    value = msgspec.msgpack.encode(WRITTEN[key])
    assert is_ours(key, value)
    for garbage in b"", b"garbage", b"\xc1", b"{}", value[:-1], value + b"\x00":
        assert not is_ours(key, garbage), garbage


def test_a_key_that_names_no_partition_is_no_workers() -> None:
    for key, what in list(WRITTEN.items())[3:]:
        prefix = key[: key.index(b"/") + 1]
        for name in b"", b"a", b"a/b", b"\xfe/1":
            assert not is_ours(prefix + name, msgspec.msgpack.encode(what))


SHORT = np.zeros(2).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"shares": SHORT, "weights": SHORT, "squares": SHORT, "losses": SHORT},
        {"weights": b""},
        {"losses": b"1234567"},
        {"trials": 2**63},
        {"trials": -1},
    ],
)
def test_a_ranker_of_other_sizes_is_no_workers(change: dict[str, Any]) -> None:
    """Kernels go by pointers into it."""
    value = packing.pack_fusion(Fusion.new(), Settings())
    assert is_ours(records.FUSION, value)
    fields = msgspec.msgpack.decode(value) | change
    assert not is_ours(records.FUSION, msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("shown", [0.0, 2.5])
def test_the_commit_of_a_row_of_the_graph_is_told_without_the_rest(shown: float) -> None:
    weights = np.ones(2, "<f4").tobytes()
    node = Node(70_000, 1, 2, 3, 4.0, 5, 6, False, [b"a", b"b"], weights, shown=shown)
    assert packing.cut_of(packing.pack_node(node)).cut == node.cut
