"""Methods of the field by their names: settings that the others stand on top of.

A preset says what the paper's method is, within one engine that learns from a stream: its corpus,
its negatives, and nothing that it does not have. How much is learned of a click is the engine's.
"""

from typing import Any

from streamer.errors import ConfigError

KEY = "preset"

_PLAIN = {"negatives.kind": "popularity", "negatives.alpha": 0.75, "model.session_passes": 0}
"""Skip-gram with negative sampling and nothing else (Mikolov et al., NIPS 2013)."""

PRESETS: dict[str, dict[str, Any]] = {
    "walkstream": {},
    "word2vec": {
        **_PLAIN, "corpus.kind": "sessions", "corpus.session": "window", "corpus.subsample": 1e-3,
    },
    "item2vec": {
        **_PLAIN, "corpus.kind": "sessions", "corpus.session": "set", "corpus.subsample": 1e-3,
    },
    "deepwalk": {**_PLAIN, "corpus.kind": "walks", "walks.p": 1.0, "walks.q": 1.0},
    "node2vec": {**_PLAIN, "corpus.kind": "walks", "walks.p": 1.0, "walks.q": 0.5},
    "eges": {**_PLAIN, "corpus.kind": "walks", "model.attribute_slots": 4},
}  # fmt: skip
"""What `walkstream` is, are the defaults."""


def settings_of(name: object) -> dict[str, Any]:
    """The settings of a preset by their keys. ConfigError if there is none of this name."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"{KEY}: {name!r} is none of {', '.join(PRESETS)}")
    return PRESETS[name]
