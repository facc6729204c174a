"""The commits whose records the tail reads: which of them count, and that none is missing."""

import msgspec
from confluent_kafka import Message

from streamer.errors import WalkstreamError
from streamer.state import records


class Commits:
    """Their numbers, as the manifests in a partition of `model-state` say them."""

    def __init__(self, where: str) -> None:
        self.where = where
        """What that partition is called."""
        self.doubtful: int | None = None
        """The first commit that is not whole: nothing of it or of later ones is taken."""
        self.newest: int | None = None
        """The newest commit whose manifest was read."""
        self.is_level = False
        """Whether that was the newest of all when the worker began."""

    def is_doubtful(self, message: Message) -> bool:
        if self.doubtful is None:
            return False
        commit = records.commit_of(message)
        return commit is not None and commit[1] >= self.doubtful

    def begin(self, commit: int) -> None:
        """From here on no manifest may be missing behind the one of this commit."""
        self.newest, self.is_level = commit, True

    def follow(self, manifest: bytes) -> None:
        """Commits have consecutive numbers. WalkstreamError where what is read goes another way.

        Of what was there before a start compaction has left the newest manifests only, so it is
        sure only that they do not go back; the newest one is read back whole. All later ones are
        this worker's, and none may be missing.
        """
        commit = msgspec.msgpack.decode(manifest, type=records.Manifest).commit
        goes_back = self.newest is not None and commit < self.newest
        if goes_back or (self.is_level and commit > (self.newest or 0) + 1):
            raise WalkstreamError(
                f"{self.where}: commit {commit} came after commit {self.newest}: the client reads "
                "the log in another order than it was written, or another worker writes to it. "
                "Nothing was committed since. Look that only one worker runs, then start again"
            )
        self.newest = commit
