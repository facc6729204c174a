"""What a worker says of itself over HTTP: `/metrics`, `/healthz` and `/readyz`."""

import faulthandler
import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, make_wsgi_app

from streamer.errors import ConfigError, Refused
from streamer.settings.sections import Config
from streamer.watch.http import Request, Response, Server
from streamer.wording import counted

if TYPE_CHECKING:
    from streamer.kafka.clients import Partition

log = logging.getLogger(__name__)

STUCK_AFTER_SECONDS = 60.0
STARTED_AFTER_SECONDS = 900.0
"""How long one step before the loop may take: a busy machine compiles the kernels for minutes, and
a large folder is loaded in one go."""
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

    def check(self, bound: float, last: str) -> None:
        """Refused if the share is over a bound, 0 for none; `last` is what the last one is told
        by."""
        if bound and self.share >= bound:
            raise Refused(
                f"{self.share:.0%} of the last {self.records} records are dead letters, and "
                f"dlq.stop_ratio is {bound:g}. The last one: {last}. Those since the last commit "
                "are still in the clicks topic: mend the producer or section [clicks], or raise "
                "dlq.stop_ratio, and start again"
            )

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
    adds to `dead_letters`. Without a beat for `stuck_after` seconds (`started_after` before the
    loop runs) `/healthz` answers 503 and the stacks of all threads go to standard error. `/readyz`
    answers 503 with the `reasons`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        config: Config,
        stuck_after: float = STUCK_AFTER_SECONDS,
        started_after: float = STARTED_AFTER_SECONDS,
    ) -> None:
        self.state: State = "starting"
        self.restored = 0.0
        self.lags: Mapping[Partition, Lag] = {}
        self.dead_letters = DeadLetterShare(config.dlq.window)
        self._longest_wait = config.ready.max_lag / 1000
        self._alarm_ratio = config.dlq.alarm_ratio
        self._stuck_after, self._started_after = stuck_after, started_after
        self._metrics = make_wsgi_app(registry)
        self._server: Server | None = None
        self._last_beat = time.monotonic()
        self._armed, self._armed_for = -math.inf, 0.0
        self._complained = False

    def beat(self) -> None:
        """Says that the loop moves, and puts off the printing of stacks."""
        now = time.monotonic()
        if self._complained:
            self._complained = False
            log.warning("the loop moves again after %.0f s", now - self._last_beat)
        self._last_beat = now
        if now - self._armed >= _ARM_SECONDS or self._armed_for != self._patience:
            self._armed, self._armed_for = now, self._patience
            # A thread of C, which works even while another one keeps the interpreter to itself.
            # It comes after `complain`, which says what the stacks are.
            after = self._patience + 2 * _ARM_SECONDS
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
                behind = counted(lag.records, "record")
                out.append(f"partition {topic}[{partition}]: {behind} to read, and none was")
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
        server = Server(self._answer, self.complain)
        try:
            out = server.start(host, port)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"metrics.port: cannot listen on {host}:{port}: {error}. Set another metrics.port "
                "(each worker of a machine needs its own) or metrics.host, or port 0 for none"
            ) from None
        self._server = server
        return out

    def stop(self) -> None:
        """Ends the serving, if it was started, and the watch over the loop."""
        faulthandler.cancel_dump_traceback_later()
        if self._server:
            self._server.stop()
            self._server = None

    @property
    def _since_beat(self) -> float:
        return time.monotonic() - self._last_beat

    @property
    def _patience(self) -> float:
        """Seconds without a beat that are no reason to worry."""
        before_the_loop = self.state in ("starting", "restoring")
        return self._started_after if before_the_loop else self._stuck_after

    @property
    def _stuck(self) -> bool:
        return self._since_beat > self._patience

    def _answer(self, request: Request) -> Response:
        answer: dict[str, object]
        if request.path == "/metrics":
            return self._scrape(request)
        if request.path == "/healthz":
            well = not self._stuck
            answer = {
                "status": "ok" if well else "stuck",
                "state": self.state,
                "seconds_since_beat": round(self._since_beat, 3),
            }
        elif request.path == "/readyz":
            reasons = self.reasons()
            well = not reasons
            answer = {"status": "ready" if well else "not ready", "reasons": reasons}
        else:
            text = b"there are /metrics, /healthz and /readyz\n"
            return Response("404 Not Found", [("Content-Type", "text/plain")], text)
        status = "200 OK" if well else "503 Service Unavailable"
        json = msgspec.json.encode(answer) + b"\n"
        return Response(status, [("Content-Type", "application/json")], json)

    def _scrape(self, request: Request) -> Response:
        """The metrics, in the format and encoding that the client takes."""
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query,
            "HTTP_ACCEPT": request.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": request.headers.get("accept-encoding", ""),
        }
        said: list[Any] = []
        body = b"".join(self._metrics(environ, lambda *head: said.extend(head)))
        return Response(said[0], said[1], body)
