"""Records in Confluent wire format, whose schemas are in a schema registry."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from streamer.decode.formats import WIRE_BYTES, Part, cut, is_framed
from streamer.errors import ConfigError, WalkstreamError
from streamer.settings.sections import KafkaValue

_MAX_SCHEMA_ID = 2**31 - 1
_DEFAULTS: dict[str, KafkaValue] = {"timeout": 5, "max.retries": 2}
"""The client's own wait has no end."""
_NOT_THE_RECORD = frozenset({401, 403, 407, 408, 429})
"""Refusals below 500 that say nothing about the schema that was asked for."""


class Registry:
    """Records in Confluent wire format, read by the deserialisers of confluent-kafka.

    `config` goes to its SchemaRegistryClient. ConfigError if the extra or the address is missing.
    """

    def __init__(self, format: str, config: Mapping[str, KafkaValue]) -> None:
        if "url" not in config:
            raise ConfigError(
                f"clicks.format is {format}, which asks a schema registry: set registry.url"
            )
        try:
            from confluent_kafka.schema_registry import (
                SchemaRegistryClient,
                record_subject_name_strategy,
            )
            from confluent_kafka.schema_registry.avro import AvroDeserializer
            from confluent_kafka.schema_registry.json_schema import JSONDeserializer
        except ImportError as error:
            raise ConfigError(
                f'clicks.format is {format}, which needs more ({error}): pip install ".[registry]"'
            ) from None
        for library in ("httpx", "httpx2"):
            # It tells of each request with the whole address.
            logging.getLogger(library).setLevel(logging.WARNING)
        try:
            self._client = SchemaRegistryClient(_DEFAULTS | dict(config))
        except (ValueError, TypeError, OSError) as error:
            raise ConfigError(f"registry: {_masked(str(error))}") from None
        # A strategy that needs no topic: schemas are asked for by id alone.
        options = {"subject.name.strategy": record_subject_name_strategy}
        self._read: Any = (
            AvroDeserializer(self._client, conf=options)
            if format == "avro"
            else JSONDeserializer(None, schema_registry_client=self._client, conf=options)
        )
        self._url = _masked(str(config["url"]))
        self._known: set[int] = set()
        self._unknown: set[int] = set()

    def ask_again(self) -> None:
        """Forget which ids are unknown: the registry may have learned them since."""
        self._unknown.clear()

    def parts(self, value: bytes) -> list[Part]:
        """The record. ValueError if it is bad, WalkstreamError if the registry does not answer."""
        if not is_framed(value):
            raise ValueError(
                "is not in Confluent wire format (a zero byte, four of a schema id, the record): "
                "set clicks.format to how it is written"
            )
        schema_id = int.from_bytes(value[1:WIRE_BYTES], "big")
        if schema_id not in self._known:
            self._fetch(schema_id)
        try:
            document = self._read(value)
        except Exception as error:  # fastavro and jsonschema raise anything on what does not fit
            problem = cut(f"{type(error).__name__}: {error}", 200)
            raise ValueError(f"does not fit its schema {schema_id}: {problem}") from None
        return [Part(None, value, document)]

    def _fetch(self, schema_id: int) -> None:
        """All requests are made here, into the client's cache: what fails later is the record's."""
        if schema_id <= _MAX_SCHEMA_ID and schema_id not in self._unknown:
            try:
                self._fetch_references(self._client.get_schema(schema_id))
            except Exception as error:  # of the HTTP library, of the client, or of a wrong answer
                status = getattr(error, "http_status_code", 0)
                if not 400 <= status < 500 or status in _NOT_THE_RECORD:
                    raise WalkstreamError(
                        f"the schema registry at {self._url} did not give schema {schema_id} "
                        f"({type(error).__name__}: {_masked(str(error))}): check registry.url "
                        "and its credentials, and that it runs"
                    ) from error
                self._unknown.add(schema_id)
            else:
                self._known.add(schema_id)
                return
        raise ValueError(f"its schema {schema_id} is not in the registry at {self._url}")

    def _fetch_references(self, schema: Any) -> None:
        for reference in schema.references or ():
            found = self._client.get_version(reference.subject, reference.version, True)
            self._fetch_references(found.schema)


def _masked(text: str) -> str:
    """The text with addresses that do not show a name and a password."""
    return re.sub(r"[^\s/@,]*:[^\s/@,]*@", "", text)
