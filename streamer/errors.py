"""Ways in which a process ends on purpose: each says what is wrong and what to do.

Each has an exit code of its own.
"""


class WalkstreamError(Exception):
    """Ends the process with its message; `exit_code` tells a supervisor which kind it was."""

    exit_code = 1


class ConfigError(WalkstreamError):
    """A setting or an argument is wrong: nothing was started."""

    exit_code = 2


class Refused(WalkstreamError):
    """Clicks would be lost or counted twice: topics, ids or offsets do not fit what is stored, or
    another process writes to the same folder."""

    exit_code = 3


class Fenced(WalkstreamError):
    """Another process took over this worker's name or partitions."""

    exit_code = 4

    def __init__(self, what: str, advice: str = "") -> None:
        self.what = what
        """What Kafka said or showed: that alone does not tell whether another process did it."""
        super().__init__(
            f"{what}. "
            + (
                advice
                or "Another process took over the name of this worker: give every worker its own "
                "app.instance, and do not start this one again until that is so"
            )
        )


class KafkaTrouble(WalkstreamError):
    """Kafka failed, or took something away; why, a worker looks for before it ends."""


class CorruptState(WalkstreamError):
    """The state folder is unreadable. It was moved aside, and a restart rebuilds it from Kafka."""

    exit_code = 5
