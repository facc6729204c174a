"""N workers of one app without Kafka: real engines, topics that are lists, and a seeded scheduler.

Who holds clicks partitions writes their clicks to the log of evidence, by commits, and all workers
fold that log in its order; who holds all of them knows the order, and folds at once. Who owns an
item partition moves and writes its rows; the others read them. Commits are atomic, as Kafka's are;
all else happens in any order, and workers die, are cut off, and come and go.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from core.engine import Engine
from core.ids.hashing import hash_keys
from core.ids.vocabulary import decode, encode, is_attribute
from core.settings import Settings
from tests.simulation.worker import Click, Entry, Fault, Row, Topics, Worker


class Cluster:
    """Workers and topics, and what has to hold of them."""

    def __init__(
        self, settings: Settings, workers: int, clicks: list[list[Click]],
        items: Sequence[tuple[str, list[str] | None]], seed: int, partitions: int = 5,
        faults: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.settings, self.chance, self.faults = settings, random.Random(seed), set(faults)
        self.topics = Topics(clicks, [], partitions)
        self.coming = list(items)
        """What is still to be written to the catalogue."""
        self.generation, self.counted = 0, Counter[tuple[int, int]]()
        self.graphs: dict[int, Any] = {}
        """What the graph was at each place of the log."""
        self.learned: dict[str, int] = {}
        """Of items: the clicks that walks had started from when its row was written."""
        self.members = {f"w{n}" for n in range(workers)}
        self.workers = {name: Worker(name, self) for name in sorted(self.members)}

    def has(self, fault: str) -> bool:
        """Whether this fault was planted."""
        return fault in self.faults

    def partition_of(self, key: bytes) -> int:
        return int(hash_keys([key], self.topics.partitions)[0][0])

    def share_of(self, name: str, turn: int | None = None) -> tuple[set[int], set[int]]:
        """The clicks and item partitions of a member in a generation, by default this one."""
        order = sorted(self.members)
        if name not in order:
            return set(), set()
        place, n = order.index(name), len(order)
        turn = self.generation if turn is None else turn
        reads = {p for p in range(len(self.topics.clicks)) if (p + turn) % n == place}
        return reads, {p for p in range(self.topics.partitions) if (p + 2 * turn) % n == place}

    def rebalance(self) -> None:
        """Members that are there give up what they have to; those that are not, lose it."""
        for name in sorted(self.workers):
            if self.chance.random() < 0.1:
                self.workers[name].is_lost = True
            else:
                self.workers[name].join()
                self.workers[name].release(*self.share_of(name, self.generation + 1))
        self.generation += 1

    def replace(self, name: str) -> None:
        """The process ends, and another one starts in its place."""
        self.workers[name] = Worker(name, self)

    def count(self, entry: Entry) -> None:
        """Every click is evidence once, as soon as it is in the log."""
        for one in entry.rounds:
            if len(one.clicks) and one.clicks.partitions is not None:
                assert one.clicks.offsets is not None
                pairs = zip(
                    one.clicks.partitions.tolist(), one.clicks.offsets.tolist(), strict=True
                )
                self.counted.update(pairs)

    def note(self, worker: Worker) -> None:
        """All graphs are equal to the bit at one place of the log."""
        found = graph_of(worker.engine)
        known = self.graphs.setdefault(worker.at, found)
        if known != found:
            differ = [k for k in known.keys() | found.keys() if known.get(k) != found.get(k)]
            told = f"{differ[0]}: {found.get(differ[0])}, elsewhere {known.get(differ[0])}"
            raise Fault(f"the graph of {worker.name} differs at {worker.at}: {told}")

    # -- the scheduler ---------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        chance = self.chance
        kinds: dict[str, tuple[float, Callable[[Worker], None]]] = {
            "collect": (6, lambda w: w.collect()),
            "learn": (8, lambda w: w.learn(chance.randint(1, 4))),
            "rows": (6, lambda w: w.read_rows(chance.randrange(self.topics.partitions), 5)),
            "placements": (1, lambda w: w.read_placements()),
            "commit": (5, lambda w: w.commit()),
            "join": (5, lambda w: w.join()),
            "take over": (5, lambda w: w.take_over()),
            "crash": (0.4, self.crash),
            "leave": (0.4, self.leave),
            "catalogue": (1, lambda w: self.write_catalogue()),
        }
        weights = [weight for weight, _ in kinds.values()]
        for _ in range(steps):
            worker = self.workers[chance.choice(sorted(self.workers))]
            chance.choices([act for _, act in kinds.values()], weights)[0](worker)
        self.settle()

    def crash(self, worker: Worker) -> None:
        self.replace(worker.name)
        self.rebalance()

    def leave(self, worker: Worker) -> None:
        """Leave the group, or come back to it."""
        self.members ^= {worker.name}
        self.members |= set() if self.members else {worker.name}
        self.rebalance()

    def write_catalogue(self) -> None:
        if self.coming:
            self.topics.items.append(self.coming.pop(0))

    def settle(self) -> None:
        """Input stops: until all is read, folded, learned and written."""
        while self.coming:
            self.write_catalogue()
        for _ in range(10):
            for name in sorted(self.workers):
                self.workers[name].join()
                worker = self.workers[name]
                for p in range(self.topics.partitions):
                    worker.read_rows(p)
                worker.read_placements()
                worker.learn(1 << 30)
                worker.take_over()
                for _ in range(4):
                    worker.collect()
                worker.commit()
        for worker in self.workers.values():
            for p in range(self.topics.partitions):
                worker.read_rows(p)

    # -- what has to hold ------------------------------------------------------------------------

    def check(self) -> None:
        """Raises Fault for anything that does not hold once all is settled."""
        topics = self.topics
        wanted = {(p, n) for p, part in enumerate(topics.clicks) for n in range(len(part))}
        if missing := wanted - self.counted.keys():
            raise Fault(f"{len(missing)} clicks are no evidence")
        if twice := [where for where, n in self.counted.items() if n > 1]:
            raise Fault(f"{len(twice)} clicks are evidence twice, such as {twice[0]}")
        owners = Counter(p for worker in self.workers.values() for p in worker.owns)
        if owners != Counter(range(topics.partitions)):
            raise Fault(f"owners: {owners}")
        readers = Counter(p for worker in self.workers.values() for p in worker.reads)
        if readers != Counter(range(len(topics.clicks))):
            raise Fault(f"readers: {readers}")
        last: dict[bytes, Row] = {}
        for p, part in enumerate(topics.rows):
            last |= topics.last(p, len(part))
        for worker in self.workers.values():
            if worker.at != len(topics.log):
                raise Fault(f"{worker.name} is at {worker.at} of {len(topics.log)}")
            self.note(worker)
            self._check_rows(worker, last)

    def _check_rows(self, worker: Worker, last: dict[bytes, Row]) -> None:
        engine, name = worker.engine, worker.name
        c, names = engine.model.columns, engine.vocabulary
        living = {encode(item) for item in names.names(engine.items)}
        owned = {key for key in living if self.partition_of(key) in worker.owns}
        unlearned = engine.items[c.updates[engine.items] == 0]
        lazy = engine.settings.publish.min_drift > 0  # what was never learned is not written
        missing = owned - {encode(item) for item in names.names(unlearned) if lazy}
        mine = {
            k for k in last if self.partition_of(k) in worker.owns and not is_attribute(decode(k))
        }
        if missing - mine or mine - owned:
            told = f"items without a row {missing - mine}, rows without an item {mine - owned}"
            raise Fault(f"{name}: {told}")
        for slot in engine.items.tolist():
            key = encode(names.keys[slot] or "")
            known, written = int(c.version[slot]), last[key].version if key in last else 0
            if known != written:
                raise Fault(f"{name} has {key!r} of version {known}, written is {written}")
            clicks, item = int(engine.graph.clicks[slot]), decode(key)
            learned = max(self.learned.get(item, 0), worker.heard.get(item, 0))
            if key in owned and clicks and learned < clicks:
                raise Fault(f"{name}: {key!r} was not learned since it was clicked")


def graph_of(engine: Engine) -> dict[str, Any]:
    """By item that was clicked: clicks that count, their weight, and the arcs. And by the hash of
    an id, what is counted of it."""
    g, names = engine.graph, engine.vocabulary.keys
    entries = zip(*engine.catalogue.admission.entries(), strict=True)
    out: dict[str, Any] = {f"#{id_}": [x.tolist() for x in rest] for id_, *rest in entries}
    for slot in engine.items[g.clicks[engine.items] > 0].tolist():
        nbr, wgt = g.row(slot)
        arcs = {str(names[b]): float(w) for b, w in zip(nbr, wgt, strict=True)}
        out[str(names[slot])] = int(g.clicks[slot]), float(g.clicked[slot]), arcs
    return out
