"""Records of `model-state` that no worker wrote: they end a start, or a repair writes over them."""

import logging

from confluent_kafka import Message

from streamer.errors import Refused
from streamer.kafka.clients import Partition, partition_of
from streamer.state.model_state import STOP_IT, no_workers

log = logging.getLogger(__name__)


class Strangers:
    """The newest records of their partitions and keys, where no worker wrote them."""

    def __init__(self) -> None:
        self.repairs = False
        """Whether a repair is to write over them."""
        self.overwritten: set[tuple[int, bytes]] = set()
        """Partitions and keys of those that it is to write over."""
        self._found: dict[tuple[int, bytes], Message] = {}
        self._held: dict[Partition, int] = {}
        """The offset of the first in each partition: a start that repairs has to meet it again."""

    def add(self, message: Message) -> None:
        self._found[_place(message)] = message

    def settle(self, message: Message) -> None:
        """A worker has written this."""
        if self._found:
            self._found.pop(_place(message), None)

    def first_of(self, where: Partition, offset: int) -> int:
        """The offset of the first in a partition, if it is before this one."""
        of_it = [m.offset() or 0 for m in self._found.values() if partition_of(m) == where]
        return min([offset, self._held.get(where, offset), *of_it])

    def judge(self) -> None:
        """Refused if there are some, unless a repair writes over them."""
        for place, message in self._found.items():
            what = no_workers(message)
            if not self.repairs:
                raise Refused(what + STOP_IT)
            log.warning("%s. The repair writes over it", what)
            self.overwritten.add(place)
            where, offset = partition_of(message), message.offset() or 0
            self._held[where] = min(self._held.get(where, offset), offset)
        self._found.clear()

    def end_repair(self) -> None:
        """All is written over. Whoever comes now is refused."""
        self.repairs = False
        self.overwritten.clear()
        self._held.clear()


def _place(message: Message) -> tuple[int, bytes]:
    return message.partition() or 0, message.key() or b""
