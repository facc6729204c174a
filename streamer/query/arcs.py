"""The item graph of a state folder, as its sweeps last wrote it, asked by item."""

import numpy as np

from streamer.state.store import Store
from streamer.worker import checkpoint


class Arcs:
    """Reads rows of the folder's graph."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def there(self) -> bool:
        """Whether there is a graph."""
        return self.store.last_key("graph") is not None

    def shares(self, key: bytes) -> dict[bytes, float]:
        """p(b | a): the share of a's arcs, decayed, that each neighbour b has; none without arcs.

        Shares do not depend on the landmark of the weights.
        """
        node = checkpoint.node(self.store, key)
        if node is None:
            return {}
        weights = np.frombuffer(node.weights, "<f4")
        if not (total := float(weights.sum())) > 0.0:
            return {}
        return dict(zip(node.neighbours, (weights / total).tolist(), strict=True))
