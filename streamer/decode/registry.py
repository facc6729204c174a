"""Records in Confluent wire format, whose schemas are in a schema registry.

Whatever ids records name, and however slow the registry is, asking takes no more than a share of a
worker's time: an unknown id is asked for once in a while, unknown ids are few in that time, and
somebody is called while the registry is waited for.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from streamer.decode import avro, json_schema
from streamer.decode.formats import WIRE_BYTES, Part, cut, is_framed, json_document
from streamer.errors import ConfigError, WalkstreamError
from streamer.settings.secrets import hidden, masked
from streamer.settings.sections import KafkaValue

_MAX_SCHEMA_ID = 2**31 - 1
_DEFAULTS: dict[str, KafkaValue] = {"timeout": 5, "max.retries": 2}
"""The client's own wait has no end."""
_UNKNOWN = frozenset({40401, 40402, 40403})
"""What a registry says of a subject, a version or a schema that it does not have. A 404 without
that comes of a wrong path, or of something else than a registry."""

UNKNOWN_SECONDS = 60.0
"""So long an id that the registry does not know is not asked for again."""
MOST_UNKNOWN = 100
"""Ids that may turn out to be unknown in that time; further ones are not asked for."""
_BETWEEN_SECONDS = 0.05
"""From one request for an unknown id to the next: 20 a second at most."""
ANSWER_SECONDS = 60.0
"""For all requests that a schema takes, each of which has the client's own time-out too."""
_BEAT_SECONDS = 0.5
_MOST_REFERENCES = 100

Read = Callable[[bytes], object]
"""Reads a document of a schema, without what frames it. Raises anything on what does not fit."""


class Registry:
    """Records in Confluent wire format, read by schemas that confluent-kafka's client fetches.

    `config` goes to its SchemaRegistryClient. `beat` is called about twice a second while the
    registry is waited for. ConfigError if the extra or the address is missing.
    """

    def __init__(
        self,
        format: str,
        config: Mapping[str, KafkaValue],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        if "url" not in config:
            raise ConfigError(
                f"clicks.format is {format}, which asks a schema registry: set registry.url"
            )
        try:
            # All of the extra, so that what is missing is told at the start.
            import confluent_kafka.schema_registry.avro
            import confluent_kafka.schema_registry.json_schema  # noqa: F401
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise ConfigError(
                f'clicks.format is {format}, which needs more ({error}): pip install ".[registry]"'
            ) from None
        for library in ("httpx", "httpx2"):
            # It tells of each request with the whole address.
            logging.getLogger(library).setLevel(logging.WARNING)
        self._config = config
        try:
            self._client = SchemaRegistryClient(_DEFAULTS | dict(config))
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"registry: {hidden(str(error), config)}") from None
        self._format, self._beat = format, beat
        self._url = str(masked("registry.url", config["url"]))
        self._readers: dict[int, Read] = {}
        self._unknown: dict[int, float] = {}
        """Until when each is not asked for, in the order of that."""
        self._missed = -_BETWEEN_SECONDS
        """When one was last found to be unknown."""

    def parts(self, value: bytes) -> list[Part]:
        """The record. ValueError if it is bad, WalkstreamError if the registry does not answer."""
        if not is_framed(value):
            raise ValueError(
                "is not in Confluent wire format (a zero byte, four of a schema id, the record): "
                "set clicks.format to how it is written"
            )
        schema_id = int.from_bytes(value[1:WIRE_BYTES], "big")
        read = self._readers.get(schema_id) or self._fetched(schema_id)
        try:
            document = read(value[WIRE_BYTES:])
        except Exception as error:  # fastavro and jsonschema raise anything on what does not fit
            raise ValueError(f"does not fit its schema {schema_id}: {_problem(error)}") from None
        return [Part(None, value, document)]

    def _fetched(self, schema_id: int) -> Read:
        """How documents of a schema are read. ValueError if the registry does not know it."""
        now = time.monotonic()
        while self._unknown and next(iter(self._unknown.values())) <= now:
            self._unknown.pop(next(iter(self._unknown)))
        if schema_id <= _MAX_SCHEMA_ID and schema_id not in self._unknown:
            if len(self._unknown) >= MOST_UNKNOWN:
                raise ValueError(
                    f"its schema {schema_id} was not asked for: the registry at {self._url} does "
                    f"not know {MOST_UNKNOWN} other ids of the last {UNKNOWN_SECONDS:.0f} s. Once "
                    "no record names such ids, `dlq replay` sends back those that are good"
                )
            time.sleep(max(0.0, self._missed + _BETWEEN_SECONDS - now))
            try:
                schema, references = self._answer(lambda: self._ask(schema_id))
            except _Late:
                raise WalkstreamError(
                    f"the schema registry at {self._url} did not give schema {schema_id} within "
                    f"{ANSWER_SECONDS:.0f} s: look whether it is overloaded, then start again"
                ) from None
            except Exception as error:  # of the HTTP library, the client, or of a wrong answer
                if getattr(error, "error_code", None) not in _UNKNOWN:
                    problem = cut(hidden(f"{type(error).__name__}: {error}", self._config), 300)
                    raise WalkstreamError(
                        f"the schema registry at {self._url} did not give schema {schema_id} "
                        f"({problem}): check registry.url, its path and credentials, and that it "
                        "is a schema registry and runs"
                    ) from error
                self._missed = time.monotonic()
                self._unknown[schema_id] = self._missed + UNKNOWN_SECONDS
            else:
                read = self._readers[schema_id] = self._reader(schema, references)
                return read
        raise ValueError(f"its schema {schema_id} is not in the registry at {self._url}")

    def _answer(self, ask: Callable[[], Any]) -> Any:
        """What `ask` returns or raises, from a thread of its own. _Late after ANSWER_SECONDS."""
        answers: list[Any] = []
        done = threading.Event()

        def run() -> None:
            try:
                answers.append((ask(), None))
            except BaseException as error:
                answers.append((None, error))
            done.set()

        end = time.monotonic() + ANSWER_SECONDS
        threading.Thread(target=run, name="schema registry", daemon=True).start()
        while not done.wait(_BEAT_SECONDS):
            self._beat()
            if time.monotonic() > end:
                raise _Late
        self._beat()
        result, error = answers[0]
        if error is not None:
            raise error
        return result

    def _ask(self, schema_id: int) -> tuple[str, dict[str, str]]:
        """A schema and those that it refers to by name, each before what refers to it."""
        references: dict[str, str] = {}
        asked: set[tuple[str, int]] = set()

        def add(schema: Any) -> None:
            for reference in schema.references or ():
                where = reference.subject, reference.version
                if where in asked:
                    continue
                asked.add(where)
                if len(asked) > _MOST_REFERENCES:
                    raise _TooManyReferences
                found = self._client.get_version(*where, True).schema
                add(found)
                references[reference.name] = found.schema_str or ""

        schema = self._client.get_schema(schema_id)
        if schema.schema_str is None:
            raise ValueError("the answer holds no schema")
        try:
            add(schema)
        except _TooManyReferences:
            return "", {}
        return schema.schema_str or "", references

    def _reader(self, schema: str, references: Mapping[str, str]) -> Read:
        """How its documents are read; for a schema that is none, what raises ValueError."""
        try:
            if not schema:
                raise ValueError(f"it is empty, or refers to more than {_MOST_REFERENCES} others")
            if self._format == "avro":
                return avro.reader(schema, list(references.values()))
            check = json_schema.Checker(schema, references)
        except Exception as error:  # fastavro and jsonschema raise anything on what is no schema
            problem = _problem(error)

            def refuse(_: bytes) -> object:
                raise ValueError(f"which is no schema that can be used: {problem}")

            return refuse

        def read(data: bytes) -> object:
            document = json_document(data)
            check(document, len(data))
            return document

        return read


class _Late(Exception):
    """The registry has not answered in time."""


class _TooManyReferences(Exception):
    """A schema refers to more others than are asked for."""


def _problem(error: Exception) -> str:
    name = "" if type(error) is ValueError else f"{type(error).__name__}: "
    return cut(f"{name}{error}", 200)
