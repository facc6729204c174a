"""The item graph of a state folder, as of its last checkpoint, asked by item."""

from streamer.store import Store
from streamer.worker import checkpoint


class Arcs:
    """Reads rows of the checkpoint's graph. Its slots are learned when first asked, by one pass."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._made: bytes | None = None
        self._ids: dict[int, bytes] = {}
        self._slots: dict[bytes, int] = {}

    @property
    def there(self) -> bool:
        """Whether there is a checkpoint."""
        return self.store.meta(checkpoint.POINTER) is not None

    def shares(self, key: bytes) -> dict[bytes, float]:
        """p(b | a): the share of a's arcs, decayed, that each neighbour b has; none without arcs.

        Shares do not depend on the landmark of the weights.
        """
        made = self.store.meta(checkpoint.POINTER)
        if made != self._made:
            # Another checkpoint may have other slots.
            self._ids = {slot: node.key for slot, node in checkpoint.nodes(self.store)}
            self._slots = {item: slot for slot, item in self._ids.items()}
            self._made = made
        slot = self._slots.get(key)
        node = None if slot is None else checkpoint.node(self.store, slot)
        if node is None or not (total := float(node.wgt.sum())) > 0.0:
            return {}
        pairs = zip(node.nbr.tolist(), (node.wgt / total).tolist(), strict=True)
        return {self._ids[slot]: share for slot, share in pairs if slot in self._ids}
