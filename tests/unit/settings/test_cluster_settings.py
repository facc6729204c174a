"""Settings of sizes, clusters, buckets and major updates that do not fit together."""

from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings.load import load

RULES = ["clusters.kind=rules", "model.attribute_slots=2"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["major.window=25:00-26:00"], "major.window: is '25:00-26:00', and must be two times"),
        (["major.window=02:00-02:00"], "in which no time is"),
        (["clusters.kind=rules"], "clusters.kind: is rules, .* set model.attribute_slots above 0"),
        ([*RULES, "clusters.spawn=0.3"], "clusters.spawn: must be 0 where clusters.kind is rules"),
        ([*RULES, "clusters.most=5000"], "clusters.most: must be at most 2343 with model.dim 64"),
        (["clusters.spawn=0.8"], "clusters.spawn: must be less than 1 - clusters.margin"),
        (["clusters.spawn=0.3", "clusters.most=10"], "clusters.most: must be at least"),
        (["clusters.spawn=0.3", "clusters.most=5000"], "clusters.most: must be at most 3515"),
        (["clusters.count=251"], "clusters.min_items: must be at least clusters.count"),
        (
            ["clusters.update=anew", "clusters.count=2001", "clusters.min_items=3000"],
            "clusters.count: must be at most 2000 where clusters.update is anew",
        ),
        (
            ["clusters.update=anew", "clusters.most=2001", "clusters.spawn=0.3"],
            "clusters.most: must be at most 2000 where clusters.update is anew",
        ),
        (["clusters.update=never"], "'never' is none of continue, anew"),
        (["size.tiers=[[2,16],[20,64]]"], r"size.tiers: begin at clicks \[2, 20\], and must begin"),
        (["size.tiers=[[1,16],[1,64]]"], "and must begin at 1 and ascend"),
        (["size.tiers=[[1,64],[20,32]]"], r"have dims \[64, 32\], and must have multiples of 16"),
        (["size.tiers=[[1,8],[20,64]]"], "multiples of 16 that ascend"),
        (["size.tiers=[[1,0],[20,64]]"], "multiples of 16 that ascend"),
        (["size.tiers=[[1,16],[20,32]]"], "end with 32 dims, and the last must have all 64 of"),
        (["size.tiers=[1,16]"], "size.tiers"),
        (["size.tiers=[[1,16,2]]"], "size.tiers"),
        (["lsh.bits=65"], "lsh.bits: must be from 1 to 64 .* or 0 for as many"),
        (["lsh.bits=0", "lsh.family=p-stable"], "lsh.bits: must be from 1 to 16"),
    ],
)
def test_what_does_not_fit_together_is_told(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load(None, given, {})


@pytest.mark.parametrize(
    "given",
    [
        ["major.window=22:30-05:00"],
        [*RULES, "clusters.count=900"],
        ["clusters.spawn=0.3", "clusters.update=anew"],
        ["clusters.update=anew", "clusters.count=2000", "clusters.min_items=3000"],
        ["clusters.count=3000", "clusters.min_items=3000"],
        [*RULES, "clusters.update=anew", "clusters.most=2300"],
        ["clusters.most=1", "clusters.min_size=1"],
        ["lsh.bits=0"],
    ],
)
def test_what_does_is_taken(given: list[str]) -> None:
    load(None, given, {})


def test_tiers_are_read_from_a_file_and_from_a_line(tmp_path: Path) -> None:
    tiers = ((1, 16), (20, 32), (100, 64))
    file = tmp_path / "walkstream.toml"
    file.write_text("[size]\ntiers = [[1, 16], [20, 32], [100, 64]]\n")
    assert load(file, [], {}).engine_settings.size.tiers == tiers
    assert load(None, ["size.tiers=[[1,16],[20,32],[100,64]]"], {}).size.tiers == tiers
    assert load(file, ["size.tiers=[]"], {}).size.tiers == ()
