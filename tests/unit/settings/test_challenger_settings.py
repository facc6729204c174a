from typing import Any

import pytest

from core.terms import MAY_DIFFER
from streamer.errors import ConfigError
from streamer.settings import challenger, presets
from streamer.settings.load import load
from streamer.settings.sections import Config


def config(*overrides: str) -> Config:
    return load(None, overrides, {})


def test_without_a_name_and_settings_there_is_none() -> None:
    assert challenger.settings(config()) is None


def test_what_is_set_stands_on_top_of_the_settings() -> None:
    champion = config(
        "preset=deepwalk",
        "walks.p=0.5",
        'challenger.set=["walks.q=2", "model.shrink_windows=true"]',
    )
    found = challenger.settings(champion)
    assert found is not None
    assert (found.walks.p, found.walks.q) == (0.5, 2.0)
    assert found.model.shrink_windows
    assert found.negatives == champion.negatives
    assert champion.walks.q == 1.0


@pytest.mark.parametrize("name", [name for name in presets.PRESETS if name != "eges"])
def test_a_preset_is_the_method_itself_in_the_same_space(name: str) -> None:
    champion = config(
        "model.dim=32", "model.seed=5", "negatives.kind=uniform", "graph.half_life=3d",
        f"challenger.preset={name}", 'challenger.set=["model.window=3"]',
    )  # fmt: skip
    found = challenger.settings(champion)
    wanted = load(None, [f"preset={name}", "model.dim=32", "model.seed=5", "model.window=3"], {})
    assert found is not None
    for section in MAY_DIFFER:
        assert getattr(found, section) == getattr(wanted, section)
    assert found.graph == champion.graph


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["challenger.preset=glove"], r"challenger\.preset: 'glove' is none of walkstream"),
        (['challenger.set=["walks.q"]'], "'walks.q' is no setting"),
        (['challenger.set=["graph.half_life=3d"]'], r"graph\.half_life is no setting of \[corpus"),
        (['challenger.set=["walks.r=3"]'], r"walks\.r is no setting"),
        (['challenger.set=["walks.q=often"]'], r"walks\.q=often: .*float"),
        (['challenger.set=["corpus.kind=books"]'], r"corpus\.kind=books"),
        (['challenger.set=["model.rate=-1"]'], r"challenger\.set: model\.rate must be more than 0"),
        (['challenger.set=["model.dim=32"]'], r"model\.dim 32, and in one vector space it is 64"),
        (['challenger.set=["model.seed=2"]'], r"model\.seed 2"),
        (["challenger.preset=eges"], r"model\.attribute_slots 4"),
        (["challenger.preset=walkstream"], "is what the settings say already"),
        (["challenger.promote=true"], r"challenger\.promote: needs a challenger"),
        (["challenger.preset=deepwalk", "quality.sample=0"], r"quality\.sample be above 0"),
        (["challenger.preset=deepwalk", "challenger.error=0"], r"challenger\.error: must be at"),
        (["challenger.preset=deepwalk", "challenger.min_agreement=2"], r"min_agreement: must"),
        (
            ["challenger.preset=deepwalk", "challenger.promote=true", "round.max_seconds=0"],
            r"challenger\.promote: must be false where rounds go by count",
        ),
        (
            ["challenger.preset=deepwalk", "challenger.promote=true", "publish.min_drift=0"],
            r"challenger\.promote: must be false where publish\.min_drift is 0",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_a_challenger_is_a_clear_error(overrides: list[Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(*overrides)
