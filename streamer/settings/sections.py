"""The settings of everything around the engine, section by section as in `walkstream.toml`.

The sections that change vectors are in `core.settings`; `Config` holds them all.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from core.settings import (
    DAY_MS,
    AdmissionSettings,
    ChallengerSettings,
    ClusterSettings,
    CorpusSettings,
    Duration,
    EngineSettings,
    GraphSettings,
    LshSettings,
    MajorSettings,
    ModelSettings,
    NegativeSettings,
    PublishSettings,
    QualitySettings,
    ResidualSettings,
    SessionSettings,
    Settings,
    SizeSettings,
    WalkSettings,
)

KafkaValue = str | int | float | bool
_DAY = Duration(DAY_MS)
_MINUTE = Duration(60_000)


@dataclass(frozen=True)
class AppSettings:
    name: str = "walkstream"
    """Names the model: consumer group id, and first part of `transactional.id`."""
    instance: str = "0"
    """Names the worker; it must stay the same over restarts. `{host}` in it stands for the name of
    the host, so that all replicas have one configuration."""


@dataclass(frozen=True)
class TopicSettings:
    clicks: str = "clicks"
    """Clicks come in here."""
    items: str = "items"
    """Attributes of items come in here."""
    item_vectors: str = "item-vectors"
    """Vectors go out here."""
    model_state: str = "model-state"
    """Internal: model rows, graph and progress, which a worker restores from."""
    transitions: str = "transitions"
    """Internal: evidence, which is what clicks did to the graph."""
    user_vectors: str = "user-vectors"
    """Vectors of users go out here, unless `user_vectors.kind` is off."""
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
class ClickSettings:
    format: Literal["json", "msgpack", "avro", "json-schema"] = "json"
    """How clicks are written. The last two ask a schema registry (section `[registry]`)."""
    fields: dict[str, str] = field(
        default_factory=lambda: {
            name: name for name in ("user_id", "item_id", "ts", "event_type", "weight", "event_id")
        }
    )
    """Where each field of a click is: a name, or a path such as `product.sku`. `@key` is the
    record's key, `@timestamp` its timestamp in ms. Of `lines[].sku` each element of the array is a
    click."""
    time_unit: Literal["ms", "s", "us", "ns", "iso", "auto"] = "ms"
    """Unit of `ts`; `iso` is text such as 2026-01-31T12:00:00Z, and `auto` is the one in which the
    time is between 1990 and 2100, for each click. A number may be in quotes."""
    max_weight: float = 100.0
    """A click whose own `weight` is more than this is a dead letter; its type's comes on top."""
    max_ahead: Duration = Duration(14 * DAY_MS)
    """A click this much further ahead than the clicks around it in its partition is a dead letter,
    whatever its record timestamp is. 0: none is."""

    @property
    def in_own_form(self) -> "ClickSettings":
        """The same bounds on clicks that are written as Walkstream writes them."""
        return ClickSettings(max_weight=self.max_weight, max_ahead=self.max_ahead)


IMPRESSION = -1.0
"""In place of a weight."""


@dataclass(frozen=True)
class EventSettings:
    weights: dict[str, float] = field(
        default_factory=lambda: {"click": 1.0, "view": 1.0, "cart": 2.0, "purchase": 3.0}
    )
    """Weight of each event type, added to the defaults; `"*"` is that of any other type. Clicks of
    a type that weighs 0 are left out; of a type without a weight, they are dead letters."""
    impressions: str = ""
    """The event type of records that say that an item was shown, whatever their weights: they are
    no clicks, and count for `query --ctr` alone, where the item was clicked before. "": none is."""
    max_ahead: Duration = _DAY
    """A click dated further ahead of its record timestamp than this is a dead letter."""
    max_bytes: int = 1_000_000
    """A record longer than this is a dead letter."""

    @property
    def all_weights(self) -> dict[str, float]:
        """Those of all event types, that of impressions among them: an impression weighs -1."""
        if not self.impressions:
            return self.weights
        return self.weights | {self.impressions: IMPRESSION}


@dataclass(frozen=True)
class DeadLetterSettings:
    alarm_ratio: float = 0.1
    """From this share of dead letters among the last records on, the worker is not ready."""
    stop_ratio: float = 0.0
    """From this share on, the worker stops instead of going on; 0: never."""
    window: int = 10_000
    """Over about how many records the share is taken."""


@dataclass(frozen=True)
class ItemSettings:
    use: tuple[str, ...] = ("category", "tags")
    """Attributes that the model learns from, if `model.attribute_slots` is above 0."""


@dataclass(frozen=True)
class UserVectorSettings:
    kind: Literal["off", "mean", "interests"] = "off"
    """What a user is known by: the decayed mean of the vectors of the last items, or some of these
    items, each the medoid of a cluster of them (PinnerSage). `off`: there is no such topic."""
    items: int = 50
    """So many of a user's newest items are remembered, 200 at most."""
    interests: int = 3
    """Of `interests`: so many at most, those that weigh most."""
    half_life: Duration = Duration(7 * DAY_MS)
    """A click on an item loses half its weight for the user in this time."""
    idle: Duration = Duration(30 * DAY_MS)
    """Who clicked nothing for this long, by the time of all clicks, is deleted from the topic."""


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
    max_records: int = 20_000
    """A commit has at most so many; what waits leaves with the next ones. With
    `publish.min_drift = 0` all that changed leaves, however much it is. With `user_vectors.kind`
    at least 20,000."""
    read_back: bool = True
    """Each commit is read back and compared with its manifest. Only a broker that shows records
    before they are committed, as the embedded one of the demo does, needs false."""


@dataclass(frozen=True)
class CheckpointSettings:
    seconds: float = 60.0
    """Time between two sweeps that write graph and sessions to the state folder; a restart folds
    the evidence since the last one began."""


@dataclass(frozen=True)
class StateSettings:
    dir: str = "./state"
    """Folder of RocksDB. Deleting it loses nothing: a restart rebuilds it from Kafka. `{host}` in
    it stands for the name of the host."""


@dataclass(frozen=True)
class StartSettings:
    position: str = "earliest"
    """Where the first start of all begins in `clicks`: `earliest`, `latest`, or a time such as
    2026-01-31T12:00:00Z."""


@dataclass(frozen=True)
class ReadySettings:
    max_lag: Duration = _MINUTE
    """/readyz answers 503 while the oldest click not yet learned waits for longer than this."""


@dataclass(frozen=True)
class MetricsSettings:
    host: str = "127.0.0.1"
    """Address on which metrics and health are served."""
    port: int = 9470
    """Serves /metrics, /healthz and /readyz; 0 serves nothing."""


@dataclass(frozen=True)
class LogSettings:
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe messages that are printed."""
    format: Literal["text", "json"] = "text"
    """`json` prints one object a line."""


@dataclass(frozen=True)
class Config:
    """All settings of a process. What may hold passwords is left out of `repr`."""

    app: AppSettings = field(default_factory=AppSettings)
    kafka: dict[str, KafkaValue] = field(
        default_factory=lambda: {"bootstrap.servers": "127.0.0.1:9092"}, repr=False
    )
    """Any property of librdkafka, passed on to its clients."""
    topics: TopicSettings = field(default_factory=TopicSettings)
    registry: dict[str, KafkaValue] = field(default_factory=dict, repr=False)
    """Any property of confluent-kafka's SchemaRegistryClient, for clicks in Avro or JSON-Schema."""
    clicks: ClickSettings = field(default_factory=ClickSettings)
    events: EventSettings = field(default_factory=EventSettings)
    dlq: DeadLetterSettings = field(default_factory=DeadLetterSettings)
    items: ItemSettings = field(default_factory=ItemSettings)
    session: SessionSettings = field(default_factory=SessionSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    admission: AdmissionSettings = field(default_factory=AdmissionSettings)
    walks: WalkSettings = field(default_factory=WalkSettings)
    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    negatives: NegativeSettings = field(default_factory=NegativeSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    size: SizeSettings = field(default_factory=SizeSettings)
    clusters: ClusterSettings = field(default_factory=ClusterSettings)
    residual: ResidualSettings = field(default_factory=ResidualSettings)
    lsh: LshSettings = field(default_factory=LshSettings)
    major: MajorSettings = field(default_factory=MajorSettings)
    publish: PublishSettings = field(default_factory=PublishSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    user_vectors: UserVectorSettings = field(default_factory=UserVectorSettings)
    round: RoundSettings = field(default_factory=RoundSettings)
    commit: CommitSettings = field(default_factory=CommitSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    state: StateSettings = field(default_factory=StateSettings)
    start: StartSettings = field(default_factory=StartSettings)
    quality: QualitySettings = field(default_factory=QualitySettings)
    challenger: ChallengerSettings = field(default_factory=ChallengerSettings)
    ready: ReadySettings = field(default_factory=ReadySettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def __post_init__(self) -> None:
        if self.round.max_seconds == 0 and self.commit.rounds == 0:
            # Rounds that close by count would be pointless if a clock closed the commits.
            object.__setattr__(self, "commit", replace(self.commit, rounds=1))

    @property
    def has_users(self) -> bool:
        """Whether vectors of users are published."""
        return self.user_vectors.kind != "off"

    @property
    def engine_settings(self) -> Settings:
        return Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)})
