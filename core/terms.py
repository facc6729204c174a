"""In what a challenger may differ from the champion."""

from core.settings import Settings

MAY_DIFFER = "corpus", "negatives", "walks", "model"
"""Sections of the settings in which a challenger may be another one than the champion."""
SAME = "dim", "attribute_slots"
"""What of [model] must be the same: rows have these sizes."""


def differences(settings: Settings, champion: Settings) -> list[str]:
    """Sections, and settings of [model], that differ and must not."""
    sections = [name for name in vars(champion) if name not in MAY_DIFFER]
    out = [name for name in sections if getattr(settings, name) != getattr(champion, name)]
    return out + [
        f"model.{name}"
        for name in SAME
        if getattr(settings.model, name) != getattr(champion.model, name)
    ]
