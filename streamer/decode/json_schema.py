"""JSON documents checked against a JSON schema, in a time that grows with their bytes.

A schema is a program: a pattern can take the age of the universe on 40 letters, and references to
references double the work with each. So patterns and what compares all with all are not checked,
a reference leads nowhere but to schemas of the registry, and steps are counted.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

UNCHECKED = frozenset(
    {
        *("pattern", "patternProperties", "format"),
        *("uniqueItems", "unevaluatedItems", "unevaluatedProperties"),
    }
)
"""Keywords that are let pass."""

STEPS, STEPS_PER_BYTE = 10_000, 3
"""Keywords that may be applied to a document, at least, and more for each of its bytes."""
_STEP = 100
"""What a step costs in itself, beside the bytes of what it is applied to, which it may print."""

Keyword = Callable[[Any, Any, Any, Any], Iterator[Any] | None]


class Checker:
    """Checks documents of a schema; `references` are other schemas by the name they go by."""

    def __init__(self, schema: str, references: Mapping[str, str]) -> None:
        from jsonschema.validators import extend, validator_for  # type: ignore[import-untyped]
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
        from referencing import Resource
        from referencing.jsonschema import DRAFT7

        given = json.loads(schema)
        resources = [
            (name, Resource.from_contents(json.loads(text), default_specification=DRAFT7))
            for name, text in references.items()
        ]
        usual: Any = validator_for(given)
        keywords = {
            name: self._counted(name, keyword)
            for name, keyword in usual.VALIDATORS.items()
            if name not in UNCHECKED
        }
        bounded: Any = extend(usual, dict.fromkeys(UNCHECKED, _pass) | keywords)
        self._validator = bounded(given, registry=REGISTRY.with_resources(resources))
        self._left = 0
        self._sizes: dict[int, int] = {}

    def __call__(self, document: object, size: int) -> None:
        """ValueError that says what does not fit. `size` is that of the document in bytes."""
        self._left = _STEP * (STEPS + STEPS_PER_BYTE * size)
        self._sizes = {}
        _measure(document, self._sizes)
        error = next(self._validator.iter_errors(document), None)
        if error is not None:
            raise ValueError(f"ValidationError: {error.message}")

    def _counted(self, name: str, keyword: Keyword) -> Keyword:
        def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            named = 10 * len(value) if isinstance(value, list | dict) else 0
            self._left -= _STEP + named + self._sizes.get(id(instance), 0)
            if self._left < 0:
                raise ValueError("takes too many steps to check")
            if name == "additionalProperties" and "patternProperties" in schema:
                return
            yield from keyword(validator, value, instance, schema) or ()

        return counted


def _pass(*_: object) -> None:
    """A keyword that fits always."""


def _measure(document: object, sizes: dict[int, int]) -> int:
    """Into `sizes`, by `id`, about how long the text of each value is that has any length."""
    if isinstance(document, str):
        size = len(document)
    elif isinstance(document, dict):
        size = sum(len(name) + _measure(value, sizes) for name, value in document.items())
    elif isinstance(document, list):
        size = sum(_measure(value, sizes) for value in document)
    else:
        return 8
    sizes[id(document)] = size
    return size
