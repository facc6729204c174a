"""The settings by which clicks are folded into sessions and graph: all workers have the same, and
evidence does not say by which it was."""

from dataclasses import fields

from core.settings import AdmissionSettings, Duration, Settings
from streamer.state.records import Marks

_BY_COUNT = "round.max_seconds = 0"


def folds_by(settings: Settings, by_count: bool) -> dict[str, int]:
    """The settings that decide what clicks do to sessions and graph, and whether one worker alone
    counts rounds."""
    session, graph = settings.session, settings.graph
    return {
        "session.gap": int(session.gap),
        "session.length": session.length,
        "session.max_events": session.max_events,
        "session.event_ids": session.event_ids,
        "graph.half_life": int(graph.half_life),
        "graph.max_degree": graph.max_degree,
        **_counts_by(settings.admission_ms),
        _BY_COUNT: int(by_count),
    }


def _counts_by(admission: AdmissionSettings) -> dict[str, int]:
    values = {f.name: int(getattr(admission, f.name)) for f in fields(AdmissionSettings)}
    return {f"admission.{name}": value for name, value in values.items()}


ALL_ADMITTED = _counts_by(AdmissionSettings())
"""Of `folds_by`, where admission is off, as it is in older versions."""


def unlike(own: dict[str, int], theirs: dict[str, int] | None) -> list[str]:
    """The names of those settings of `folds_by` that differ; None where nobody knows them but for
    admission."""
    known = ALL_ADMITTED | (theirs or {})
    return [name for name, value in own.items() if known.get(name, value) != value]


def fold_unlike(own: dict[str, int], marks: Marks) -> list[str]:
    """Of `unlike` those settings by which clicks do something else to sessions and graph than they
    did until these marks."""
    return [name for name in unlike(own, marks.folds_by) if name != _BY_COUNT]


def counted_by(marks: Marks) -> AdmissionSettings:
    """By which settings ids were counted until these marks, as of `Settings.admission_ms`."""
    known = ALL_ADMITTED | (marks.folds_by or {})
    return AdmissionSettings(
        known["admission.min_events"], known["admission.min_users"],
        Duration(known["admission.forget"]), known["admission.most"],
    )  # fmt: skip
