"""Calls of a client that end in time, whatever the client does.

librdkafka looks at the time-out of some calls at certain moments only, which may never come:
`send_offsets_to_transaction` waits for good where the group's coordinator is a broker that the
client has given up, though it has the same broker anew by then.
"""

from collections.abc import Callable
from threading import Thread
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

T = TypeVar("T")


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What `call` returns or raises, from a thread of its own.

    KafkaException after so long. Its error is fatal: the client is still at it, may do it late, and
    is good for nothing else. Nobody waits for it any more, not even the end of the process.
    """
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors.pop()  # whose frames have the list
    for answer in answers:
        return answer
    text = f"{what}: the Kafka client did not come back within {seconds:g} s"
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, text, True, False, False))
