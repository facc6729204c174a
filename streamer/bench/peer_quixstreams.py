"""Counts clicks by user with quixstreams and its state on disk. One line of JSON a question:
{"servers": ..., "topic": ..., "clicks": how many there are} -> {"seconds": ...,
"cpu_seconds": ...}, from the first click to the last.
"""

import json
import logging
import sys
import tempfile
import time
from typing import Any
from uuid import uuid4

from quixstreams import Application, State


def count(servers: str, topic: str, clicks: int) -> dict[str, float]:
    """Seconds by the clock and of the processor, from the first click to the last one."""
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=servers, consumer_group=f"count-{uuid4()}", state_dir=folder,
            auto_offset_reset="earliest", loglevel="ERROR", use_changelog_topics=False,
        )  # fmt: skip
        seen = 0
        begin = end = (0.0, 0.0)

        def one(click: Any, state: State) -> None:
            nonlocal seen, begin, end
            if not seen:
                begin = time.perf_counter(), time.process_time()
            state.set("clicks", state.get("clicks", 0) + 1)
            seen += 1
            if seen == clicks:
                end = time.perf_counter(), time.process_time()

        app.dataframe(app.topic(topic, value_deserializer="json")).update(one, stateful=True)
        app.run(count=clicks)
        return {"seconds": end[0] - begin[0], "cpu_seconds": end[1] - begin[1]}


def main() -> None:
    """Answer until the input ends."""
    logging.disable(logging.WARNING)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        print(json.dumps(count(**json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
