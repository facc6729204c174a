"""What a worker says of itself over HTTP: `/metrics`, `/healthz` and `/readyz`."""

import faulthandler
import logging
import math
import time
from collections.abc import Iterable, Mapping
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Literal, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from streamer.errors import ConfigError
from streamer.settings.sections import Config

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from streamer.kafka.clients import Partition

log = logging.getLogger(__name__)

STUCK_AFTER_SECONDS = 60.0
_ARM_SECONDS = 1.0
"""The alarm that prints stacks is set anew at most this often: it costs a thread each time."""
_STANDARD_ERROR = 2

State = Literal["starting", "restoring", "running", "stopping"]


class Lag(NamedTuple):
    """How far the worker is behind in a partition."""

    records: int
    """Not processed yet."""
    oldest: int
    """Record timestamp of the first of them, ms; -1 where it is not known."""

    def seconds(self) -> float:
        """How long the oldest record has waited by now; 0 without one."""
        if not self.records or self.oldest < 0:
            return 0.0
        return max(0.0, time.time() - self.oldest / 1000.0)


class DeadLetterShare:
    """Share of dead letters among about the last `window` records.

    A record counts exp(-n / window) after n more, so that no list of verdicts is kept.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._records = self._dead = 0.0

    def add(self, records: int, dead: int) -> None:
        """Counts `records` more, `dead` of which are dead letters."""
        fade = math.exp(-records / self._window)
        self._records = self._records * fade + records
        self._dead = self._dead * fade + dead

    @property
    def records(self) -> int:
        """About how many records the share is taken over."""
        return min(self._window, round(self._records))

    @property
    def share(self) -> float:
        """0 to 1; 0 as long as there are too few records to judge by.

        A hundred are enough: with 2% bad ones, 10 or more of them come once in 30,000 starts. A
        window below a thousand asks for a hasty verdict and gets it after a tenth of it.
        """
        enough = self._records >= min(100.0, self._window / 10)
        return self._dead / self._records if enough else 0.0


class Health:
    """Tells a supervisor whether the worker loop moves, and a balancer whether it is of use.

    The loop calls `beat` on every turn, in every state, and sets `state`, `restored` (share of the
    restore that is done), `lags` (replaced, never changed in place: other threads read it) and
    adds to `dead_letters`. Without a beat for `stuck_after` seconds, `/healthz` answers 503 and the
    stacks of all threads go to standard error. `/readyz` answers 503 with the `reasons`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        config: Config,
        stuck_after: float = STUCK_AFTER_SECONDS,
    ) -> None:
        self.state: State = "starting"
        self.restored = 0.0
        self.lags: Mapping[Partition, Lag] = {}
        self.dead_letters = DeadLetterShare(config.dlq.window)
        self._longest_wait = config.ready.max_lag / 1000
        self._alarm_ratio = config.dlq.alarm_ratio
        self._stuck_after = stuck_after
        self._metrics = make_wsgi_app(registry)
        self._server: WSGIServer | None = None
        self._last_beat = time.monotonic()
        self._armed = -math.inf
        self._complained = False

    def beat(self) -> None:
        """Says that the loop moves, and puts off the printing of stacks."""
        now = time.monotonic()
        if self._complained:
            self._complained = False
            log.warning("the loop moves again after %.0f s", now - self._last_beat)
        self._last_beat = now
        if now - self._armed >= _ARM_SECONDS:
            self._armed = now
            # A thread of C, which works even while another one keeps the interpreter to itself.
            # It comes after `complain`, which says what the stacks are.
            after = self._stuck_after + 2 * _ARM_SECONDS
            faulthandler.dump_traceback_later(after, file=_STANDARD_ERROR)

    def complain(self) -> None:
        """Says once what the stacks mean that are about to be printed, if the loop is stuck."""
        if self._stuck and not self._complained:
            self._complained = True
            log.error(
                "the loop has not moved for %.0f s (state: %s): the stacks of all threads follow "
                "on standard error, and the first lines of the main thread say where it waits. "
                "Restart the worker, which loses nothing, and keep the stacks for a report",
                self._since_beat, self.state,
            )  # fmt: skip

    def reasons(self) -> list[str]:
        """Why the worker is not ready, in words; empty when it is."""
        out = []
        if self._stuck:
            out.append(f"the loop has not moved for {int(self._since_beat)} s")
        if self.state == "restoring":
            out.append(f"restoring {int(100 * self.restored)}%")
        elif self.state != "running":
            out.append(self.state)
        waits = ((lag.seconds(), partition) for partition, lag in self.lags.items())
        seconds, (topic, partition) = max(waits, default=(0.0, ("", 0)))
        if seconds > self._longest_wait:
            out.append(
                f"partition {topic}[{partition}] waits for {int(seconds)} s, "
                f"bound {self._longest_wait:g} s"
            )
        for (topic, partition), lag in self.lags.items():
            if lag.records and lag.oldest < 0:
                out.append(f"partition {topic}[{partition}]: none of {lag.records} records is read")
                break
        if self.dead_letters.share >= self._alarm_ratio:
            out.append(
                f"{self.dead_letters.share:.0%} of the last {self.dead_letters.records} records "
                "are dead letters"
            )
        return out

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
        server.service_actions = self.complain  # type: ignore[method-assign]
        Thread(target=server.serve_forever, name="health", daemon=True).start()
        return int(server.server_port)

    def stop(self) -> None:
        """Ends the serving, if it was started, and the watch over the loop."""
        faulthandler.cancel_dump_traceback_later()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def _since_beat(self) -> float:
        return time.monotonic() - self._last_beat

    @property
    def _stuck(self) -> bool:
        return self._since_beat > self._stuck_after

    def _answer(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        answer: dict[str, object]
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path == "/healthz":
            well = not self._stuck
            answer = {
                "status": "ok" if well else "stuck",
                "state": self.state,
                "seconds_since_beat": round(self._since_beat, 3),
            }
        elif path == "/readyz":
            reasons = self.reasons()
            well = not reasons
            answer = {"status": "ready" if well else "not ready", "reasons": reasons}
        else:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there are /metrics, /healthz and /readyz\n"]
        start_response(
            "200 OK" if well else "503 Service Unavailable", [("Content-Type", "application/json")]
        )
        return [msgspec.json.encode(answer) + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes come every few seconds; nobody wants a line for each."""
