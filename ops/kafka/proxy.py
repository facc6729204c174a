"""A TCP proxy before a broker that holds, changes, swallows or cuts what it is told to.

    with Proxy() as proxy, Broker(behind=proxy) as broker:
        late = proxy.hold(LIST_OFFSETS, RESPONSE, seconds=1.5)   # each answer, for so long
        end = proxy.hold(END_TXN, REQUEST, times=1)              # the next request, until released
        ...                          # clients use broker.bootstrap, which is the proxy's address;
        end.wait()                   # broker.direct goes past it
        end.cut()                    # the client's line breaks: it connects anew and asks again
        end.release()                # the old request reaches the broker now
        proxy.change(ADD_OFFSETS_TO_TXN, RESPONSE, patch, times=1)
        proxy.swallow(FETCH, RESPONSE, where=lambda frame: frame.client == "app-0-reader")
        proxy.break_lines(END_TXN, REQUEST)          # the line breaks instead of passing the frame
        proxy.close_lines()                          # all lines break now
        proxy.requests["app-0-reader", FETCH]        # how many came from this client id
        late.remove()                # the rule is off, and what it holds passes

It knows Kafka's framing: 4 bytes of length; a request begins with API key, API version (2 bytes
each), correlation id (4 bytes) and client id, its response with the same correlation id. What
stands behind a held frame on the same line waits too, as on any TCP connection; other lines pass.
With `overtaken=True` it passes, as if it came from another broker: clients go by correlation ids.
The first rule that takes a frame decides about it. A line that is cut is cut for the client only:
the broker still gets what was held from it, once it is released.
"""

import contextlib
import itertools
import queue
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, Self

PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
JOIN_GROUP = 11
HEARTBEAT = 12
INIT_PRODUCER_ID = 22
ADD_PARTITIONS_TO_TXN = 24
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
TXN_OFFSET_COMMIT = 28

Side = Literal["request", "response"]
REQUEST: Side = "request"
RESPONSE: Side = "response"

WAIT_SECONDS = 60.0


class Frame(NamedTuple):
    """A request or a response. `data` is all of it but the length in front."""

    api: int
    version: int
    correlation: int
    client: str
    """The client id of the request, also where this is the response."""
    line: int
    """A number of the connection."""
    data: bytes
    arrived: float
    """By `time.monotonic`, on this side."""
    asked: bytes
    """The request: what a response answers."""


class Line:
    """One connection of a client, and ours to the broker behind it."""

    def __init__(self, number: int, client: socket.socket, broker: socket.socket) -> None:
        self.number, self.client, self.broker = number, client, broker
        self.asked: dict[int, Frame] = {}
        """Requests that have no response yet, by correlation id."""
        self.is_cut = False
        self.sending = {REQUEST: threading.Lock(), RESPONSE: threading.Lock()}

    def cut(self) -> None:
        """Break the client's half. The broker's lasts until it has answered what it got."""
        self.is_cut = True
        _close(self.client)

    def close(self) -> None:
        _close(self.client)
        _close(self.broker)


class Rule:
    """What happens to some of the frames, until it is removed. Made by a method of `Proxy`."""

    def __init__(
        self, proxy: "Proxy", api: int, side: Side, times: int | None,
        where: Callable[[Frame], bool] | None, act: Callable[[Frame, Line, "Rule"], bytes | None],
        overtaken: bool = False,
    ) -> None:  # fmt: skip
        self.proxy, self.api, self.side, self.act = proxy, api, side, act
        self.times, self.where, self.overtaken = times, where, overtaken
        self.caught: list[Frame] = []
        self.held: list[Line] = []
        """Lines on which a frame waits now."""
        self.free = threading.Event()

    def takes(self, frame: Frame, side: Side) -> bool:
        return (
            (self.api, self.side) == (frame.api, side)
            and (self.times is None or len(self.caught) < self.times)
            and (self.where is None or self.where(frame))
        )

    def wait(self, frames: int = 1, seconds: float = WAIT_SECONDS) -> None:
        """Until it took so many frames; TimeoutError if it did not."""
        deadline = time.monotonic() + seconds
        while len(self.caught) < frames:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.caught)} of {frames} frames of API {self.api} came")
            time.sleep(0.005)

    def cut(self) -> None:
        """Break the clients' halves of the lines on which a frame is held."""
        for line in list(self.held):
            line.cut()

    def release(self) -> None:
        """Let what is held pass; frames that come later are held no more."""
        self.free.set()

    def remove(self) -> None:
        self.proxy.rules.remove(self)
        self.release()


class Proxy:
    """Listens on the loopback address and passes everything on to `target`, less what rules say."""

    def __init__(self, target: str = "") -> None:
        self.target = target
        """host:port of the broker's listener; `Broker(behind=...)` sets it."""
        self.rules: list[Rule] = []
        self.requests: Counter[tuple[str, int]] = Counter()
        """Requests that came, by client id and API key."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lines: set[Line] = set()
        self._lock = threading.Lock()
        _start(self._accept)

    # -- rules -----------------------------------------------------------------------------------

    def hold(
        self, api: int, side: Side, seconds: float | Callable[[], float] | None = None,
        times: int | None = None, where: Callable[[Frame], bool] | None = None,
        overtaken: bool = False,
    ) -> Rule:  # fmt: skip
        """Frames wait for so long after they arrived, or until the rule is released."""

        def act(frame: Frame, line: Line, rule: Rule) -> bytes:
            most = seconds() if callable(seconds) else seconds
            rule.held.append(line)
            rule.free.wait(most and max(0.0, frame.arrived + most - time.monotonic()))
            rule.held.remove(line)
            return frame.data

        return self._add(api, side, times, where, act, overtaken)

    def swallow(
        self, api: int, side: Side, times: int | None = None,
        where: Callable[[Frame], bool] | None = None,
    ) -> Rule:  # fmt: skip
        """Frames never arrive, and the line stays."""
        return self._add(api, side, times, where, lambda frame, line, rule: None)

    def break_lines(
        self, api: int, side: Side, times: int | None = None,
        where: Callable[[Frame], bool] | None = None,
    ) -> Rule:  # fmt: skip
        """The client's line breaks where such a frame would have passed, and the frame is gone."""
        return self._add(api, side, times, where, lambda frame, line, rule: line.cut())

    def change(
        self, api: int, side: Side, change: Callable[[Frame], bytes], times: int | None = None,
        where: Callable[[Frame], bool] | None = None,
    ) -> Rule:  # fmt: skip
        """Frames pass as what `change` makes of them."""
        return self._add(api, side, times, where, lambda frame, line, rule: change(frame))

    def _add(
        self, api: int, side: Side, times: int | None, where: Callable[[Frame], bool] | None,
        act: Callable[[Frame, Line, Rule], bytes | None], overtaken: bool = False,
    ) -> Rule:  # fmt: skip
        rule = Rule(self, api, side, times, where, act, overtaken)
        self.rules.append(rule)
        return rule

    # -- lines -----------------------------------------------------------------------------------

    def close_lines(self) -> None:
        """Break all lines that there are, as a firewall or a switch that starts anew does."""
        for line in list(self._lines):
            line.close()

    def close(self) -> None:
        """Break all lines and listen no more."""
        _close(self._listener)
        for rule in self.rules:
            rule.release()
        self.close_lines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        for number in itertools.count():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host, _, port = self.target.rpartition(":")
            try:
                broker = socket.create_connection((host, int(port)), timeout=5)
            except (OSError, ValueError):
                _close(client)  # as a port would on which nobody listens
                continue
            broker.settimeout(None)
            for end in client, broker:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = Line(number, client, broker)
            self._lines.add(line)
            _start(lambda line=line: self._forward(line))  # type: ignore[misc]
            _start(lambda line=line: self._answer(line))  # type: ignore[misc]

    def _forward(self, line: Line) -> None:
        """Requests of a client. When it has gone, the broker's half goes as well."""
        for arrived, data in _frames(line.client):
            api, version, correlation, length = struct.unpack_from(">hhih", data)
            client = data[10 : 10 + max(0, length)].decode(errors="replace")
            frame = Frame(api, version, correlation, client, line.number, data, arrived, data)
            line.asked[correlation] = frame
            with self._lock:
                self.requests[client, api] += 1
            self._pass(frame, line, REQUEST)
        deadline = time.monotonic() + WAIT_SECONDS
        while line.is_cut and line.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        _close(line.broker)

    def _answer(self, line: Line) -> None:
        """Responses of the broker. A client that has gone does not keep it from sending them."""
        for arrived, data in _frames(line.broker):
            (correlation,) = struct.unpack_from(">i", data)
            if (asked := line.asked.get(correlation)) is not None:
                self._pass(asked._replace(data=data, arrived=arrived), line, RESPONSE)
                del line.asked[correlation]
        line.close()
        self._lines.discard(line)

    def _pass(self, frame: Frame, line: Line, side: Side) -> None:
        with self._lock:
            rule = next((rule for rule in self.rules if rule.takes(frame, side)), None)
            if rule is not None:
                rule.caught.append(frame)

        def act_and_send() -> None:
            data = rule.act(frame, line, rule) if rule is not None else frame.data
            if data is not None:
                end = line.broker if side == REQUEST else line.client
                with contextlib.suppress(OSError), line.sending[side]:
                    end.sendall(struct.pack(">i", len(data)) + data)

        if rule is not None and rule.overtaken:
            _start(act_and_send)
        else:
            act_and_send()


def _start(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def _frames(end: socket.socket) -> Iterator[tuple[float, bytes]]:
    """When each frame arrived, and what it is, until the connection ends.

    They are read while an earlier one is held, so that each waits from its own arrival on.
    """
    came: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()

    def receive() -> None:
        while (data := _read(end)) is not None:
            came.put((time.monotonic(), data))
        came.put(None)

    _start(receive)
    while (frame := came.get()) is not None:
        yield frame


def _read(end: socket.socket) -> bytes | None:
    """The next frame without its length; None at the end of the connection."""
    size = _exactly(end, 4)
    return None if size is None else _exactly(end, struct.unpack(">i", size)[0])


def _exactly(end: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view, got = memoryview(data), 0
    while got < size:
        try:
            more = end.recv_into(view[got:])
        except OSError:
            return None
        if not more:
            return None
        got += more
    return bytes(data)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads it
    end.close()
