"""`/metrics` and `/healthz` over HTTP, from one background thread."""

import time
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Literal
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from streamer.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

STUCK_AFTER_SECONDS = 60.0

State = Literal["starting", "restoring", "running", "stopping"]


class Health:
    """Tells a supervisor whether the worker loop moves.

    The loop calls `beat` on every turn, in every state, and sets `state`. `/healthz` answers 503
    when the last beat is longer ago than `stuck_after` seconds.
    """

    def __init__(
        self, registry: CollectorRegistry, stuck_after: float = STUCK_AFTER_SECONDS
    ) -> None:
        self.state: State = "starting"
        self._stuck_after = stuck_after
        self._metrics = make_wsgi_app(registry)
        self._server: WSGIServer | None = None
        self.beat()

    def beat(self) -> None:
        self._last_beat = time.monotonic()

    def start(self, host: str, port: int) -> int:
        """Serves until `stop`. Port 0 takes any free one; returns the port.

        Raises ConfigError when the address cannot be had.
        """
        try:
            server = make_server(host, port, self._answer, _Server, _Silent)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"metrics.port: cannot listen on {host}:{port}: {error}. Set another metrics.port "
                "(each worker of a machine needs its own) or metrics.host, or port 0 for none"
            ) from None
        self._server = server
        Thread(target=server.serve_forever, name="health", daemon=True).start()
        return int(server.server_port)

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path != "/healthz":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there are /metrics and /healthz\n"]
        since_beat = time.monotonic() - self._last_beat
        stuck = since_beat > self._stuck_after
        start_response(
            "503 Service Unavailable" if stuck else "200 OK",
            [("Content-Type", "application/json")],
        )
        answer = {
            "status": "stuck" if stuck else "ok",
            "state": self.state,
            "seconds_since_beat": round(since_beat, 3),
        }
        return [msgspec.json.encode(answer) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes come every few seconds; nobody wants a line for each."""
