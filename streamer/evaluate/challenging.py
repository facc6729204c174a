"""A challenger that learns beside the model of an evaluation, as `[challenger]` says."""

import math

import msgspec

from core.challenger import Promotion
from core.engine import Engine
from core.rounds import Outputs
from streamer import kernels
from streamer.evaluate.rankers import Asked, Model, Ranks
from streamer.settings import challenger
from streamer.settings.sections import Config

NAME = "challenger"


class Contest(msgspec.Struct, frozen=True):
    """What came of it."""

    trials: int
    """Ranked by both; until it took over, if it did."""
    wins: int
    """Trials that the challenger alone has hit."""
    losses: int
    """Trials that the champion alone has hit."""
    log_evidence: float
    """The natural logarithm of the evidence that it is better: enough at -log(challenger.error)."""
    took_over: int | None
    """After which click."""
    agreement: float | None
    """Mean cosine of its vectors, turned, with the champion's; None if it did not take over."""
    is_new_space: bool = False
    """Whether that is less than `challenger.min_agreement`."""

    def told(self) -> str:
        """In a sentence."""
        alone = (
            f"alone it hit {self.wins:,} of {self.trials:,} trials, the champion {self.losses:,}"
        )
        if self.took_over is not None:
            where = ", in a vector space of its own" if self.is_new_space else ""
            return (
                f"took over at click {self.took_over:,}{where}: {alone}; agreement "
                f"{self.agreement:.2f}"
            )
        shown = f"{math.exp(self.log_evidence):.3g}" if self.log_evidence < 700 else "beyond 1e304"
        return f"{alone}; evidence {shown}"


class Contender:
    """Watches over the challenger of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.challenger = engine.challenger
        self.trials = 0
        self.promotion: Promotion | None = None
        self.took_over: int | None = None

    def observe(self, outputs: Outputs, clicks: int) -> None:
        """A round was learned, the last of so many clicks."""
        self.trials += outputs.quality.duel.trials
        if outputs.changes is not None and outputs.changes.promotion is not None:
            self.promotion, self.took_over = outputs.changes.promotion, clicks

    @property
    def found(self) -> Contest | None:
        one = self.challenger
        if one is None:
            return None
        told, test = self.promotion, one.test
        return Contest(
            self.trials, test.wins, test.losses, test.log_evidence, self.took_over,
            None if told is None else told.agreement, told is not None and told.is_new_space,
        )  # fmt: skip


def engine_of(config: Config) -> Engine:
    """An engine with these settings, and the challenger that they name."""
    kernels.prepare(config.engine_settings, config.user_vectors.kind == "interests")
    engine = Engine(config.engine_settings)
    if (settings := challenger.settings(config)) is not None:
        kernels.prepare(settings)
        engine.challenge(settings, config.challenger)
    return engine


def beside(asked: Asked) -> Ranks:
    """The challenger's `next`, which is the model's own once it took over."""
    catalogue = asked.engine.catalogue
    model = catalogue.model if catalogue.beside is None else catalogue.beside
    return {NAME: Model(("next",))(asked, model.rows)["next"]}
