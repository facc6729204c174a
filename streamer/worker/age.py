"""Whether items will leave for no click of theirs: as a model is old, or by other settings.

Event time decides what leaves, and the wall clock never does; here it only informs.
"""

import time

from core.engine import Engine
from core.graph.graph import NEVER
from core.settings import DAY_MS, Duration
from streamer.settings.load import spelled
from streamer.wording import counted

MANY = 0.02
"""Share of the items: fewer may be on their way out anyway."""


def shortened(engine: Engine) -> str | None:
    """What to say where the settings of today let items leave at once; None if they do not."""
    items, now = engine.items, engine.clock.time
    horizon = engine.settings.graph.horizon_ms
    seen = engine.graph.last_seen[items]
    leave = int(((seen != NEVER) & (seen < now - horizon)).sum())
    if now == NEVER or leave <= MANY * len(items):
        return None
    return (
        f"{leave:,} of {counted(len(items), 'item')} were last clicked more than graph.horizon "
        f"({spelled(Duration(horizon))}) before the newest click, and leave now: it was longer "
        "before, or graph.half_life was, of which it is eight if it is 0"
    )


def warning(newest_ms: int, horizon_ms: int, now_ms: int | None = None) -> str | None:
    """What to say of a model whose newest click is more than a horizon ago; None if it is not.

    `newest_ms` is 0 or less where there was no click yet.
    """
    age = (int(time.time() * 1000) if now_ms is None else now_ms) - newest_ms
    if newest_ms <= 0 or age <= horizon_ms:
        return None
    return (
        f"the newest click in the model is {age // DAY_MS:,} days old, and graph.horizon is "
        f"{spelled(Duration(horizon_ms))}: the first click of today lets every item leave that "
        "nobody clicks within the horizon. To keep the items, raise graph.horizon before clicks of "
        "today come in"
    )
