"""How far a long command is, on standard error: a bar on a terminal, else a line now and then."""

import time
from typing import Self

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from streamer.terminal import Console

SHOW_SECONDS = 0.25
LINE_SECONDS = 10.0
"""Between two lines."""


class Display:
    """Shows the position in something of size `total`, if that is known, under a name.

    The bar goes away in the end unless it `stays`.
    """

    def __init__(self, name: str, total: int | None, stays: bool = False) -> None:
        self._name, self._total = name, total
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.fields[text]}", markup=False), TimeRemainingColumn(),
            console=self._console, transient=not stays, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(name, total=total, text="starting")
        self._interval = SHOW_SECONDS if self._console.is_terminal else LINE_SECONDS
        self._shown = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @property
    def silent(self) -> float:
        """Seconds since something was shown, 0 while it is too early to show more."""
        seconds = time.monotonic() - self._shown
        return seconds if seconds >= self._interval else 0.0

    def show(self, position: int, text: str = "") -> None:
        """Show the position, and a text beside it, unless it is too early."""
        if not self.silent:
            return
        self._shown = time.monotonic()
        if self._console.is_terminal:
            self._bar.update(self._task, completed=position, text=text)
            return
        share = f"{position / self._total:.0%}" if self._total else ""
        line = f"{self._name}: {', '.join(part for part in (share, text) if part)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def finish(self, position: int, text: str = "") -> None:
        """Leave the bar of one that stays as it is at the end."""
        self._bar.update(self._task, completed=position, text=text)
