"""Configuration: `walkstream.toml`, then environment variables, then `--set`; the later wins.

The sections that change vectors are defined in `core.settings`, the others here.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import msgspec

from core.settings import (
    DAY_MS,
    ClusterSettings,
    Duration,
    EngineSettings,
    GraphSettings,
    LshSettings,
    MajorSettings,
    ModelSettings,
    PublishSettings,
    SessionSettings,
    Settings,
    WalkSettings,
)
from streamer import limits
from streamer.errors import ConfigError

DEFAULT_FILE = Path("walkstream.toml")
KafkaValue = str | int | float | bool
_DAY = Duration(DAY_MS)


@dataclass(frozen=True)
class AppSettings:
    name: str = "walkstream"
    """Names the model: consumer group id, and first part of `transactional.id`."""
    instance: str = "0"
    """Names the worker; it must stay the same over restarts."""


@dataclass(frozen=True)
class TopicSettings:
    clicks: str = "clicks"
    """Clicks come in here."""
    items: str = "items"
    """Attributes of items come in here."""
    item_vectors: str = "item-vectors"
    """Vectors go out here."""
    model_state: str = "model-state"
    """Internal: model rows and progress, which a worker restores from."""
    vector_deltas: str = "vector-deltas"
    """Internal: updates between workers."""
    dead_letters: str = "clicks.dlq"
    """Records that could not be used go out here."""
    partitions: int = 8
    """Partitions of each topic that is created."""
    replication: int = 1
    """Replicas of each topic that is created; 3 in production."""
    min_insync_replicas: int = 1
    """Replicas that must have a record before it counts; 2 in production."""
    check: bool = True
    """A worker refuses to start on topics whose settings would lose clicks or vectors."""


@dataclass(frozen=True)
class EventSettings:
    weights: dict[str, float] = field(
        default_factory=lambda: {"click": 1.0, "view": 1.0, "cart": 2.0, "purchase": 3.0}
    )
    """Weight of each event type, added to the defaults; `"*"` is the weight of any other type."""
    max_ahead: Duration = _DAY
    """A click dated further ahead of its record timestamp than this is a dead letter."""


@dataclass(frozen=True)
class ItemSettings:
    use: tuple[str, ...] = ("category", "tags")
    """Attributes that the model learns from, if `model.attribute_slots` is above 0."""


@dataclass(frozen=True)
class RoundSettings:
    max_events: int = 2000
    """Records of a round at most. Smaller rounds learn a little better, larger ones faster."""
    max_seconds: float = 0.25
    """A round closes after this time even if it is not full; 0 closes rounds by count only."""


@dataclass(frozen=True)
class CommitSettings:
    seconds: float = 1.0
    """A commit closes after this time."""
    rounds: int = 0
    """A commit closes after this many rounds; 0 leaves it to `seconds`."""


@dataclass(frozen=True)
class CheckpointSettings:
    seconds: float = 60.0
    """Time between checkpoints of graph and sessions; a restart folds the clicks since the last."""


@dataclass(frozen=True)
class StateSettings:
    dir: str = "./state"
    """Folder of RocksDB. Deleting it loses nothing: a restart rebuilds it from Kafka."""


@dataclass(frozen=True)
class StartSettings:
    position: Literal["earliest", "latest"] = "earliest"
    """Where the first start of all begins in `clicks`."""


@dataclass(frozen=True)
class MetricsSettings:
    host: str = "127.0.0.1"
    """Address that serves them."""
    port: int = 9470
    """Serves /metrics and /healthz; 0 serves nothing."""


@dataclass(frozen=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages that are printed."""
    format: Literal["text", "json"] = "text"
    """`json` prints one object a line."""


@dataclass(frozen=True)
class Config:
    """Everything a process is told. `kafka` is left out of `repr`, as it may hold passwords."""

    app: AppSettings = field(default_factory=AppSettings)
    kafka: dict[str, KafkaValue] = field(
        default_factory=lambda: {"bootstrap.servers": "localhost:9092"}, repr=False
    )
    topics: TopicSettings = field(default_factory=TopicSettings)
    events: EventSettings = field(default_factory=EventSettings)
    items: ItemSettings = field(default_factory=ItemSettings)
    session: SessionSettings = field(default_factory=SessionSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    walks: WalkSettings = field(default_factory=WalkSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    clusters: ClusterSettings = field(default_factory=ClusterSettings)
    lsh: LshSettings = field(default_factory=LshSettings)
    major: MajorSettings = field(default_factory=MajorSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    round: RoundSettings = field(default_factory=RoundSettings)
    commit: CommitSettings = field(default_factory=CommitSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    state: StateSettings = field(default_factory=StateSettings)
    start: StartSettings = field(default_factory=StartSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        if self.round.max_seconds == 0 and self.commit.rounds == 0:
            # Rounds that close by count would be pointless if a clock closed the commits.
            object.__setattr__(self, "commit", replace(self.commit, rounds=1))

    @property
    def engine_settings(self) -> Settings:
        return Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})


_SECTIONS: dict[str, Any] = get_type_hints(Config)
_TYPES: dict[str, Any] = {
    f"{section}.{key}": type_
    for section, cls in _SECTIONS.items()
    if section != "kafka"
    for key, type_ in get_type_hints(cls).items()
}
_WEIGHTS = "events.weights"

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_LONGEST_MS = 36_525 * DAY_MS


def duration(value: object) -> Duration:
    """A span from "30m", "14d", "1h30m", "500ms", or a bare number of seconds.

    Raises ValueError for anything else, and for spans below 0 or above 100 years.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if isinstance(value, str) and _SPAN.sub("", value) == "" != value:
            ms = sum(float(number) * _UNITS_MS[unit] for number, unit in _SPAN.findall(value))
        else:
            ms = float(value) * 1000
    except (ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is no duration: write 30m, 14d, 1h30m, 500ms, or a number of seconds"
        ) from None
    if not 0 <= ms <= _LONGEST_MS:
        raise ValueError(f"{value!r} is out of range: a duration is between 0 and 100 years")
    return Duration(round(ms))


class _Text(str):
    """A value from the environment or `--set`, whose TOML type is not known yet."""


def load(file: Path | None, overrides: Sequence[str], environ: Mapping[str, str]) -> Config:
    """The configuration from `file`, then `environ`, then `overrides` ("section.key=value").

    Without `file`, `walkstream.toml` in the working directory is read if there is one.
    Raises ConfigError that names the key and where it was set.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value, origin in [
        *_from_file(file),
        *_from_environ(environ),
        *_from_overrides(overrides),
    ]:
        for leaf, leaf_value in _flatten(key, _typed(key, value)):
            values[leaf], origins[leaf] = leaf_value, origin

    defaults = Config()
    kafka, weights = dict(defaults.kafka), dict(defaults.events.weights)
    sections: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    for key, value in values.items():
        section, _, name = key.partition(".")
        converted = _converted(key, value, origins[key])
        if section == "kafka":
            kafka[name] = converted
        elif key.startswith(_WEIGHTS + "."):
            weights[key.removeprefix(_WEIGHTS + ".")] = converted
        else:
            sections[section][name] = converted
    sections["events"]["weights"] = weights
    del sections["kafka"]
    built = {section: _SECTIONS[section](**given) for section, given in sections.items()}
    config = Config(kafka=kafka, **built)
    for key, problem in limits.problems(config):
        raise ConfigError(f"{key}: {problem}{_source(origins.get(key))}")
    return config


def _from_file(file: Path | None) -> Iterator[tuple[str, Any, str]]:
    path = file or DEFAULT_FILE
    if file is None and not path.exists():
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    for key, value in document.items():
        yield key, value, str(path)


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    for variable, text in environ.items():
        # Container platforms set names such as WALKSTREAM_PORT for a service called walkstream,
        # so a name without the double underscore is none of ours.
        if not variable.startswith("WALKSTREAM_") or "__" not in variable:
            continue
        section, _, name = variable.removeprefix("WALKSTREAM_").lower().partition("__")
        name = name.replace("_", ".") if section == "kafka" else name.replace("__", ".")
        yield f"{section}.{name}", _Text(text), variable


def _from_overrides(overrides: Sequence[str]) -> Iterator[tuple[str, Any, str]]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: write --set section.key=value")
        yield key.strip(), _Text(text.strip()), "--set"


def _typed(key: str, value: Any) -> Any:
    """Text as the TOML value it spells, unless the key holds text: `app.instance=1` is "1"."""
    if not isinstance(value, _Text):
        return value
    text = str(value)
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    type_ = _type_of(key)
    holds_text = type_ in (str, KafkaValue) or get_origin(type_) is Literal
    parsed = document["value"]
    if len(document) > 1 or (holds_text and not isinstance(parsed, str)):
        return text
    return parsed


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flatten(f"{key}.{name}", inner)
    else:
        yield key, value


def _type_of(key: str) -> Any:
    if key.startswith("kafka."):
        return KafkaValue
    return float if key.startswith(_WEIGHTS + ".") else _TYPES.get(key)


def _converted(key: str, value: Any, origin: str) -> Any:
    type_ = _type_of(key)
    if type_ is None:
        raise ConfigError(f"{key}: there is no such setting{_nearest(key)}{_source(origin)}")
    if get_origin(type_) is Literal and value not in type_.__args__:
        choices = ", ".join(type_.__args__)
        raise ConfigError(f"{key}: {value!r} is none of {choices}{_source(origin)}")
    try:
        # Strict for Kafka: a password such as "007" must stay the text it is.
        strict = type_ is KafkaValue
        return msgspec.convert(value, type_, strict=strict, dec_hook=lambda _, v: duration(v))
    except msgspec.ValidationError as error:
        raise ConfigError(f"{key}: {error}{_source(origin)}") from None


def _nearest(key: str) -> str:
    same_name = [known for known in _TYPES if known.endswith("." + key.rpartition(".")[2])]
    nearest = difflib.get_close_matches(key, _TYPES, n=1, cutoff=0.7) or same_name
    if nearest:
        return f"; did you mean {nearest[0]}?"
    return f"; the sections are {', '.join(_SECTIONS)}"


def _source(origin: str | None) -> str:
    return f" (from {origin})" if origin else ""
