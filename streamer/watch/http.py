"""A small HTTP server for a few pages, which no client can keep from answering the others."""

import asyncio
import contextlib
import socket
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from collections.abc import Callable
from threading import Thread
from typing import NamedTuple

REQUEST_SECONDS = 5.0
"""How long one request may take, from the connection to the last byte of the answer."""
MAX_CONNECTIONS = 64
"""One more, and the oldest is closed: a probe that comes now matters more than one that waits."""
MAX_REQUEST_BYTES = 16_384
TICK_SECONDS = 0.5


class Request(NamedTuple):
    """What a client asks for."""

    path: str
    query: str
    headers: dict[str, str]
    """By name in lower case."""


class Response(NamedTuple):
    """What it gets."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


class Server:
    """Serves what `answer` says, in one thread of its own, which also calls `tick` now and then.

    One thread waits for all connections, so that a thousand half-sent requests take no thread and
    no turn from anybody. Both functions must be quick.
    """

    def __init__(self, answer: Callable[[Request], Response], tick: Callable[[], None]) -> None:
        self._answer, self._tick = answer, tick
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._open: dict[asyncio.Task[None] | None, None] = {}
        """The tasks of all connections, the oldest first."""
        self._thread = Thread(target=self._run, name="health", daemon=True)

    def start(self, host: str, port: int) -> int:
        """Listen, and serve until `stop`. Returns the port; OSError if it cannot be had."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self._socket = socket.create_server(found[0][4][:2], family=found[0][0])
        self._thread.start()
        return int(self._socket.getsockname()[1])

    def stop(self) -> None:
        """Close all connections."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._socket, limit=MAX_REQUEST_BYTES
        )
        while not self._stop.is_set():
            self._tick()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), TICK_SECONDS)
        server.close()

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        me = asyncio.current_task()
        self._open[me] = None
        if len(self._open) > MAX_CONNECTIONS and (oldest := next(iter(self._open))):
            # It is cancelled in a later turn, so it must not be taken for the oldest again.
            del self._open[oldest]
            oldest.cancel()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(self._reply(await reader.readuntil(b"\r\n\r\n")))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, IncompleteReadError, LimitOverrunError):
            pass  # whoever asks so gets no answer, and nobody else waits for him
        finally:
            self._open.pop(me, None)
            writer.transport.abort()

    def _reply(self, head: bytes) -> bytes:
        request, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = request.partition(" ")
        path, _, query = rest.partition(" ")[0].partition("?")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if method in ("GET", "HEAD"):
            out = self._answer(Request(path, query, headers))
        else:
            out = Response("405 Method Not Allowed", [("Allow", "GET, HEAD")], b"")
        length = ("Content-Length", str(len(out.body)))
        named = "".join(f"{k}: {v}\r\n" for k, v in (*out.headers, length, ("Connection", "close")))
        first = f"HTTP/1.1 {out.status}\r\n{named}\r\n".encode("latin-1")
        return first if method == "HEAD" else first + out.body
