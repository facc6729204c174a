"""The commits whose records the tail reads: which of them count, and that none is missing."""

import msgspec

from streamer.errors import WalkstreamError
from streamer.state.commits import Manifest, Mark
from streamer.worker.manifests import Doubt


class Commits:
    """Their numbers, as the manifests in a partition of `model-state` say them."""

    def __init__(self, where: str, instance: str) -> None:
        self.where, self.instance = where, instance
        """What that partition is called, and whose commits are followed."""
        self.seen = 0
        """The greatest number of all commits whose manifests were read, of whatever worker."""
        self.doubtful: Doubt | None = None
        """Commits that are not whole: nothing of them is taken."""
        self.newest: int | None = None
        """The newest commit whose manifest was read."""
        self.is_level = False
        """Whether that was the newest of all when the worker began."""

    def is_doubtful(self, mark: Mark | None) -> bool:
        """Whether a record of this commit is of one that is not whole."""
        if (doubt := self.doubtful) is None or mark is None:
            return False
        return mark.instance in ("", doubt.instance) and mark.number >= doubt.first

    def is_own(self, mark: Mark) -> bool:
        """Whether a commit is one of this worker's."""
        return mark.instance in ("", self.instance)

    def has_applied(self, mark: Mark | None) -> bool:
        """Whether this worker made the commit, and has applied it to the folder: what is read of it
        comes late, and later commits may have written over it."""
        return mark is not None and self.is_level and self.is_own(mark)

    def begin(self, commit: int) -> None:
        """From here on no manifest may be missing behind the one of this commit."""
        self.newest, self.is_level = commit, True

    def follow(self, manifest: bytes) -> None:
        """Each commit of this worker names the one before. WalkstreamError where what is read goes
        another way.

        Of what was there before a start compaction has left the newest manifests only, so it is
        sure only that they do not go back; the newest one is read back whole. Of all later ones
        none may be missing.
        """
        one = msgspec.msgpack.decode(manifest, type=Manifest)
        self.seen = max(self.seen, one.commit)
        if one.instance != self.instance:
            return
        before = one.commit - 1 if one.before is None else one.before
        goes_back = self.newest is not None and one.commit < self.newest
        if goes_back or (self.is_level and before > (self.newest or 0)):
            raise WalkstreamError(
                f"{self.where}: commit {one.commit} came after commit {self.newest}: the client "
                "reads the log in another order than it was written, or another worker of this "
                "app.instance writes to it. Nothing was committed since. Look that only one of "
                "that name runs, then start again"
            )
        self.newest = one.commit
