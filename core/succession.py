"""What changes in an engine when its challenger takes over."""

from typing import TYPE_CHECKING

from core.challenger import Promotion
from core.learner import Learner
from core.placing.clusters import NONE

if TYPE_CHECKING:
    from core.engine import Engine


def promote(engine: "Engine") -> Promotion | None:
    """Let the challenger take over, if it is to: then learning goes on as it has learned."""
    one = engine.challenger
    if one is None or (promotion := one.take_over(engine.round_number)) is None:
        return None
    engine.settings = engine.starts.settings = engine.intake.settings = one.settings
    engine.learner = Learner(one.settings, engine.catalogue)
    if promotion.is_new_space:
        _begin_space(engine)
    engine.outdated = {p: engine.versions.get(p, 0) for p in range(engine.partitions)}
    engine.rest()
    return promotion


def _begin_space(engine: "Engine") -> None:
    """Let all rows be those of another vector space from the next version on, of any partition:
    they are placed anew, and leave as there is room."""
    engine.write_all()
    engine.leaving.space_from = engine.publish_from
    engine.model.columns.cluster[:] = NONE
    if engine.placement.epoch > 0:
        model, items, now = engine.model, engine.items, engine.clock.time
        engine.place_by(engine.placer.anew(engine.placement, model, items, now))
        engine.starts.major = None
