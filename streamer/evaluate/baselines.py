"""The rankers that need no training (`streamer.evaluate.scores.BASELINES`)."""

from core.settings import Settings
from streamer.evaluate.knn import SessionNeighbours
from streamer.evaluate.past import Past
from streamer.evaluate.rankers import Counts, Ranker, popularity


def baselines(past: Past, settings: Settings) -> list[Ranker]:
    """All of them, of one past."""
    return [
        popularity,
        Counts("transitions", past.after),
        Counts("co-visitation", past.beside),
        Counts("w5", past.around),
        SessionNeighbours(past, int(settings.graph.half_life)),
    ]
