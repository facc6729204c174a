"""Methods by their names, and what goes with them."""

import re
from pathlib import Path

import pytest

from streamer.errors import ConfigError
from streamer.settings import presets
from streamer.settings.load import leaves, load, load_with_origins
from streamer.settings.sections import Config


@pytest.mark.parametrize("name", presets.PRESETS)
def test_each_preset_is_a_configuration(name: str) -> None:
    config, origins = load_with_origins(None, [f"preset={name}"], {})
    values = leaves(config)
    for key, value in presets.PRESETS[name].items():
        assert (values[key], origins[key]) == (value, f"preset {name}")
    assert name != "walkstream" or config == Config()


def test_settings_stand_on_top_of_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "walkstream.toml"
    file.write_text('preset = "item2vec"\n[corpus]\nsubsample = 0.01\n')
    config = load(file, ["negatives.kind=uniform"], {})
    assert (config.corpus.kind, config.corpus.session) == ("sessions", "set")
    assert (config.corpus.subsample, config.negatives.kind) == (0.01, "uniform")
    # The last that names one counts.
    assert load(file, [], {"WALKSTREAM_PRESET": "deepwalk"}).corpus.kind == "walks"
    assert load(file, ["preset=node2vec"], {"WALKSTREAM_PRESET": "deepwalk"}).walks.q == 0.5


def test_a_preset_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="preset: 'glove' is none of walkstream, word2vec"):
        load(None, ["preset=glove"], {})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["negatives.kind=mix"], "is a mix: give shares, of uniform, popularity, similar, scored"),
        (["events.impressions=click"], "must not be click: that is what clicks without a type are"),
        (["negatives.similar=0.1"], "is scored, and shares are for a mix: set mix"),
        (["model.alpha=0.75"], "any more: negatives.alpha is it"),
        (["corpus.subsample=2"], "must be at least 0 and at most 1"),
    ],
)
def test_what_a_corpus_or_negatives_cannot_be_is_told(given: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(None, given, {})


@pytest.mark.parametrize(
    "section",
    ["model", "corpus", "kafka", "registry", "events.weights", "clicks.fields", "nonsense"],
)
def test_a_preset_below_a_section_is_sent_to_the_top_of_the_file(
    tmp_path: Path, section: str
) -> None:
    file = tmp_path / "some.toml"
    file.write_text(f'[{section}]\npreset = "item2vec"\n')
    told = rf"^{section}\.preset: there is no such .* it stands above the first one.*some\.toml\)$"
    with pytest.raises(ConfigError, match=told):
        load(file, [], {})
    with pytest.raises(ConfigError, match=r"it is --set preset=NAME.*\(from --set\)$"):
        load(None, [f"{section}.preset=item2vec"], {})


def test_a_preset_that_is_misspelled_is_asked_about() -> None:
    with pytest.raises(ConfigError, match=r"presets: there is no .*; did you mean preset\?"):
        load(None, ["presets=item2vec"], {})


def test_an_event_may_be_called_as_the_setting_is() -> None:
    assert load(None, ["events.weights.preset=2"], {}).events.weights["preset"] == 2.0
