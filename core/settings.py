"""The settings of the engine. Every section of `walkstream.toml` that changes a vector is here."""

from dataclasses import dataclass, field, replace
from typing import Literal

DAY_MS = 86_400_000


class Duration(int):
    """A span of time in whole milliseconds (written `30m`, `14d`, `1h30m` in configuration)."""


@dataclass(frozen=True)
class SessionSettings:
    gap: Duration = Duration(30 * 60_000)
    """Two clicks of a user further apart than this belong to different sessions."""
    length: int = 5
    """How many last items of a session are remembered, and predict the next one."""
    max_events: int = 500
    """Clicks of a session past this many add no evidence: who goes on for so long is a bot."""
    event_ids: int = 8
    """How many last event ids of a user are remembered, to leave out what comes twice."""
    visits: int = 1_000_000
    """Newest clicks that are remembered by session and by item, for `hybrid`; 44 bytes each."""


@dataclass(frozen=True)
class GraphSettings:
    half_life: Duration = Duration(7 * DAY_MS)
    """An arc loses half its weight in this time. A quarter of the span you care about is good."""
    horizon: Duration = Duration(0)
    """An item that nobody clicked for this long leaves; 0 means 8 half-lives."""
    max_degree: int = 128
    """Neighbours kept for an item, a power of two; past it the weakest leaves."""

    @property
    def horizon_ms(self) -> int:
        return int(self.horizon) or 8 * int(self.half_life)


@dataclass(frozen=True)
class AdmissionSettings:
    min_events: int = 1
    """An id gets a row, a vector and a place in the graph with its click of this number; the ones
    before are only counted. 1: with the first. 2 keeps random ids out."""
    min_users: int = 1
    """And not before so many users have clicked it."""
    forget: Duration = Duration(0)
    """An id that was not clicked for this long is counted anew; 0 means `graph.horizon`."""
    most: int = 1_000_000
    """Ids that are counted at most, or one in eight that are admitted if that is more; past it a
    quarter leaves, those not clicked for longest. 24 bytes each with 2 `min_events`, 32 with 2
    `min_users` as well, in a table that is at most four fifths full."""

    @property
    def is_on(self) -> bool:
        return self.min_events > 1 or self.min_users > 1


@dataclass(frozen=True)
class WalkSettings:
    per_node: int = 6
    """Walks from each changed item, every round."""
    length: int = 8
    """Items in a walk, its start included. Multiples of 8 are learned fastest."""
    replay: float = 0.25
    """Further starts, as a share of the changed items, drawn from all items."""
    p: float = 1.0
    """Walks turn back to the item before with weight 1 / p (node2vec)."""
    q: float = 1.0
    """Walks leave the neighbourhood of the item before with weight 1 / q (node2vec)."""


@dataclass(frozen=True)
class CorpusSettings:
    kind: Literal["walks", "sessions", "both"] = "walks"
    """What skip-gram reads: walks on the graph (DeepWalk, node2vec), what users did (word2vec,
    item2vec), or first one and then the other."""
    session: Literal["window", "set", "shuffle"] = "window"
    """What an item of a session meets: `model.window` items before it (word2vec), all items before
    it as a set (item2vec), or as many as a window has, by lot, which costs less."""
    subsample: float = 0.0
    """word2vec's threshold t: an item that is more than this share of all clicks is left out of
    some sentences, the more often the more frequent it is. 1e-3 is usual; 0: none is."""


NEGATIVES = ("uniform", "popularity", "similar", "scored")


@dataclass(frozen=True)
class NegativeSettings:
    kind: Literal["uniform", "popularity", "similar", "scored", "mix"] = "scored"
    """What a pair is learned against: any known item; one by its clicks, count^alpha; one of the
    same cluster; the best scored of several; or a mix of these."""
    uniform: float = 0.0
    """Shares of the kinds in a mix: of each negative the kind is drawn by them."""
    popularity: float = 0.0
    """As `uniform`."""
    similar: float = 0.0
    """As `uniform`. Hard negatives are few: .2 or less."""
    scored: float = 0.0
    """As `uniform`."""
    alpha: float = 0.75
    """Of `popularity`: .75 is word2vec's, 0 would be uniform."""
    draws: int = 2
    """Of `scored`: so many are drawn, and the best scored is taken."""
    scored_from: Literal["uniform", "popularity"] = "uniform"
    """Of `scored`: what is drawn."""
    similar_by: Literal["cluster", "bucket"] = "cluster"
    """Of `similar`: items of the same cluster, or of the same bucket of the first LSH table.
    It is looked for in 256 draws, and is one of all where they find none: with many clusters most
    are (of 1,000 as large 77%)."""
    spare_neighbours: bool = False
    """What is a neighbour of an item in the graph is none of its negatives. Takes a tenth more
    time."""

    @property
    def shares(self) -> dict[str, float]:
        """The share of each kind; they sum to 1."""
        if self.kind != "mix":
            return {kind: float(kind == self.kind) for kind in NEGATIVES}
        total = sum(getattr(self, kind) for kind in NEGATIVES)
        return {kind: getattr(self, kind) / total for kind in NEGATIVES}

    @property
    def hardest_of(self) -> int:
        """So many draws are compared for a negative."""
        return self.draws if self.shares["scored"] > 0.0 else 1


@dataclass(frozen=True)
class ModelSettings:
    dim: int = 64
    """Length of a vector, a multiple of 16. 128 is better above some 20,000 items."""
    window: int = 5
    """Context items on each side of the centre."""
    shrink_windows: bool = False
    """Contexts weigh less the further they are from the centre: 1, then 1 - 1 / window, and so on,
    as those of word2vec, whose windows shrink at random, do on the mean. Serves long walks."""
    negatives: int = 5
    """Weight of the negatives: that of k negatives for each positive pair."""
    block: int = 8
    """Consecutive items of a walk that share their negatives, as many as the block is long."""
    rate: float = 0.1
    """Learning rate of row-wise Adagrad."""
    initial_accumulator: float = 1e-3
    """What Adagrad's accumulators begin with; smaller lets new rows move faster."""
    forgetting: float = 0.5
    """Accumulators lose half of what they have so many times in a `graph.half_life`, so that an old
    model moves as much as a young one. 0: never, and it moves less and less."""
    session_passes: int = 1
    """Times the transitions of a round are learned from their sessions, after the walks."""
    session_decay: float = 0.5
    """Weight of each older item of a session relative to the one after it."""
    session_negatives: int = 13
    """Items of all that each transition of a session is learned against."""
    session_rate: float = 0.7
    """Learning rate of the sessions."""
    sharpness: float = 5.0
    """Of sessions, the softmax of this times the score of `next` is learned."""
    attribute_slots: int = 0
    """Attribute rows mixed into an item's vector (EGES); 0 ignores attributes."""
    seed: int = 1
    """All that is random follows from it; part of the vector space."""


@dataclass(frozen=True)
class SizeSettings:
    tiers: tuple[tuple[int, int], ...] = ()
    """Dims that an item's own row has, by its clicks: `[[1, 32], [20, 64]]` gives it 32, and
    all with the 20th. Multiples of 16, and the last is `model.dim`. Empty: all have all."""


RULE_BYTES = 300_000
"""So long may be all that rules say: one record has it beside the centroids."""
MOST_MATCHED = 2000
"""So many clusters may be found anew: which is which of the old ones is told by a table of as many
rows and columns, int64, and in up to the cube of it steps, for which a commit waits."""


@dataclass(frozen=True)
class ClusterSettings:
    count: int = 64
    """Clusters, once there are `min_items` items; before that every item has none."""
    min_items: int = 250
    """Settled items (10 updates or more) that the first clusters wait for."""
    margin: float = 0.2
    """Between major updates a known item changes cluster only if the other centroid's cosine is
    better by this much; at a major update it goes to the nearest."""
    update: Literal["continue", "anew"] = "continue"
    """What a major update does: k-means goes on from where the centroids were, or begins anew, and
    each cluster gets the label that most of its items had, so that as many as can keep theirs."""
    spawn: float = 0.0
    """A settled item that is placed, and whose cosine with each centroid is below this, founds a
    cluster of its own. 0: none does. Of several workers the one that leads sees its own items, and
    those of others at a major update."""
    most: int = 1000
    """Clusters that there may be with `spawn`, or by rules."""
    kind: Literal["vectors", "rules"] = "vectors"
    """By vectors (k-means), or by attributes: what has the same most specific ones is a cluster,
    which has a name. Rules need `model.attribute_slots`, are made at major updates, and know of an
    item as many attributes as there are slots."""
    depth: int = 3
    """Of rules: so many attributes, those that the fewest items have, say where an item is."""
    min_size: int = 20
    """Of rules: where fewer items have the same, they fall back by one attribute."""


@dataclass(frozen=True)
class ResidualSettings:
    strength: float = 0.0
    """An item's vector is pulled to its cluster's centre, as by so many updates that say no more
    than that; an item has some 30 of a click. 0: it is not."""


@dataclass(frozen=True)
class LshSettings:
    family: Literal["sign", "p-stable"] = "sign"
    """`sign` hashes angles, `p-stable` distances: floor((x.v + b) / width)."""
    tables: int = 8
    """A query looks into all tables (OR)."""
    bits: int = 12
    """Hashes that must agree inside a table (AND); 12 up to some 50,000 items, 14 for 100,000.
    0: of `sign`, as many as the catalogue asks for by that rule, at each major update."""
    width: float = 0.5
    """Cell width of the p-stable family."""
    margin: float = 0.02
    """A hash changes only when the projection is past the boundary by this much."""


@dataclass(frozen=True)
class MajorSettings:
    every: Duration = Duration(7 * DAY_MS)
    """Event time between major updates, which walk from all items and move centroids; 0: never."""
    window: str = ""
    """Quiet hours, such as 02:00-05:00, in UTC and by event time: one that is due begins only then,
    or with the first clicks after them where none came. Empty: at any time. `walkstream major` asks
    for one now."""


@dataclass(frozen=True)
class PublishSettings:
    min_drift: float = 0.01
    """A vector leaves when its cosine distance to the last published one is at least this; its
    model row leaves with it. 0: every row that changed leaves, and a restart is exact to the bit.
    """
    min_interval: Duration = Duration(0)
    """An item is published at most so often, unless it moved five times `min_drift`. A restart
    begins to count anew."""
    budget: int = 0
    """Vectors published in a second at most, over five of them, the ones that moved furthest first;
    0: no bound."""
    format: Literal["json", "msgpack"] = "json"
    """`msgpack` carries the vectors as little-endian float32 bytes."""
    form: Literal["full", "residual"] = "full"
    """`residual` carries what is left of a vector besides its cluster's centroid, in a byte a
    dimension; the centroids have records of their own."""


@dataclass(frozen=True)
class QualitySettings:
    sample: int = 16
    """Transitions of a round that are ranked before it is learned: for the quality metrics, and to
    teach `hybrid`, which learns from six times as many while there is much to learn. Fewer where
    there are many items. 0: none, and `hybrid` stays as it is."""


@dataclass(frozen=True)
class ChallengerSettings:
    preset: str = ""
    """A method by its name, which learns beside these settings on the same rounds, with the
    defaults in `[corpus]`, `[negatives]`, `[walks]` and `[model]` but for what it and `set` say.
    Empty: these settings, but for `set`; with neither there is no challenger."""
    set: tuple[str, ...] = ()
    """Settings of its own in these four sections, as of `--set`: ["negatives.draws=4"]."""
    promote: bool = False
    """It takes over once it is better by a sequential test of `quality.sample` trials a round."""
    error: float = 0.05
    """How likely one that is no better may ever take over, in however many rounds of one life: a
    crash begins another."""
    min_agreement: float = 0.5
    """The mean cosine with these settings' vectors that its own, turned onto them, must have to
    take over in one space: with less, vectors before and after cannot be compared, and a new
    `space` begins."""


@dataclass(frozen=True)
class EngineSettings:
    threads: int = 1
    """Threads of the learning kernels. More than 1 gives up byte-for-byte repeatability."""


@dataclass(frozen=True)
class Settings:
    """All settings of `core.engine.Engine`."""

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
    quality: QualitySettings = field(default_factory=QualitySettings)
    engine: EngineSettings = field(default_factory=EngineSettings)

    @property
    def admission_ms(self) -> AdmissionSettings:
        """Those of admission, with the time of `forget` in every case; all the same where it is
        off."""
        if not self.admission.is_on:
            return AdmissionSettings()
        forget = Duration(int(self.admission.forget) or self.graph.horizon_ms)
        return replace(self.admission, forget=forget)

    @property
    def accumulator_half_life(self) -> int:
        """In ms, 0 for never."""
        often = self.model.forgetting
        return max(1, round(self.graph.half_life / often)) if often > 0.0 else 0
