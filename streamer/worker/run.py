"""A worker from its first moment to its last, and what it ends with."""

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from streamer import memory
from streamer.errors import Refused, WalkstreamError
from streamer.kafka.failures import failure, kafka_error
from streamer.settings.sections import Config
from streamer.state.folders import guarded
from streamer.watch import log as logs
from streamer.worker.header import Accepted
from streamer.worker.loop import Worker
from streamer.worker.starting import Stopped
from streamer.worker.stop import Stop

log = logging.getLogger(__name__)

CLOSE_SECONDS = 10.0
"""How long the farewell to the brokers may take when all else is done."""


def run(config: Config, accepted: Accepted) -> None:
    """Run one worker until SIGTERM or SIGINT. Returns after a clean stop, raises otherwise."""
    memory.give_back()
    stop = Stop()
    # RocksDB is closed at the end of it, so that a folder that it could not read may be moved.
    with guarded(Path(config.state.dir)), ExitStack() as stack:
        worker = Worker(config, stop, stack)
        try:
            worker.start(accepted)
            memory.collect_by_time()
            worker.loop()
            worker.finish()
        except Stopped:
            log.info("stopped while restoring; nothing was changed")
        except Exception as error:
            if isinstance(error, SystemError) and isinstance(error.__cause__, WalkstreamError):
                error = error.__cause__  # of a callback, from within a call that failed as well
            if (kafka := kafka_error(error)) is not None:
                error = failure(kafka, "kafka")
            if isinstance(error, WalkstreamError):
                error = worker.verdict(error)
            stop.ending.within(CLOSE_SECONDS, partial(logs.end, error))
            if isinstance(error, Refused) and worker.member is not None:
                worker.member.leave()
            raise error
        stop.ending.within(CLOSE_SECONDS, _without_farewell)


def _without_farewell() -> int:
    log.warning("the brokers did not answer to the farewell: ended without it, nothing is lost")
    return 0
