"""How a consumer fetches: what has come within a tenth of a second at once, as each answer costs
both ends. After its queue was full, librdkafka would wait for a second before it fetches again, in
which a reader that is behind empties the queue and waits too.
"""

from collections.abc import Mapping

from streamer.settings.sections import KafkaValue

LEAST_BYTES = 100_000
"""What an answer has at least, unless a tenth of a second is over."""
_MOST = "fetch.message.max.bytes", "max.partition.fetch.bytes", "fetch.max.bytes"


def defaults(kafka: Mapping[str, KafkaValue]) -> dict[str, KafkaValue]:
    """Properties of a consumer that section [kafka] may have otherwise.

    An answer that may not have LEAST_BYTES would come after a tenth of a second, however much of
    the log there is to read.
    """
    bounds = [int(kafka[name]) for name in _MOST if name in kafka]
    return {
        "fetch.wait.max.ms": 100,
        "fetch.min.bytes": min([LEAST_BYTES, *bounds]),
        "fetch.queue.backoff.ms": 5,
    }
