"""Whether a model is so old that the first click of today empties it.

Event time decides what leaves, and the wall clock never does; here it only informs.
"""

import time

from core.settings import DAY_MS, Duration
from streamer.settings.load import spelled


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
