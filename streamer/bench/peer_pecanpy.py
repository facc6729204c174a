"""PecanPy's walks, in the environment that `peers` made for it: it pins old versions.

Started with a graph (`np.savez` of indptr, indices and data, rows sorted). Each question is a
JSON line: {"mode", "p", "q", "threads", "walks", "length"}, and with "save" the file for the walks,
int64 [walks, length], -1 past the end. The answer: {"seconds", "steps"} of the walking alone;
compiling, alias tables and the lists of strings that PecanPy makes of its walks are not counted.
"""

import json
import sys
import time
from typing import Any

import numba as nb
import numpy as np
from numba_progress import ProgressBar  # type: ignore[import-not-found]
from pecanpy import pecanpy  # type: ignore[import-not-found]


def main() -> None:
    graph = np.load(sys.argv[1])
    ready: dict[tuple[str, float, float], Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["mode"], asked["p"], asked["q"]
        if key not in ready:
            walker = getattr(pecanpy, asked["mode"])(p=asked["p"], q=asked["q"])
            walker.indptr = graph["indptr"].astype(np.uint32)
            walker.indices, walker.data = graph["indices"].astype(np.uint32), graph["data"]
            walker.set_node_ids(None, implicit_ids=True, num_nodes=len(graph["indptr"]) - 1)
            walker.preprocess_transition_probs()
            ready[key] = walker, walker.get_has_nbrs(), walker.get_move_forward()
        walker, has_nbrs, move_forward = ready[key]
        nb.set_num_threads(asked["threads"])
        n, length = asked["walks"], asked["length"]
        starts = np.random.default_rng(1).permutation(np.arange(n, dtype=np.uint32))
        starts %= walker.num_nodes
        with ProgressBar(total=n, disable=True) as progress:
            began = time.perf_counter()
            # The last column is the number of nodes of the walk.
            out = walker._random_walks(n, length - 1, 1, starts, has_nbrs, move_forward, progress)
            seconds = time.perf_counter() - began
        nodes = out[:, -1].astype(np.int64)
        if "save" in asked:
            past = np.arange(length) >= nodes[:, None]
            np.save(asked["save"], np.where(past, -1, out[:, :length].astype(np.int64)))
        print(json.dumps({"seconds": seconds, "steps": int(nodes.sum() - n)}), flush=True)


main()
