"""Configuration: `walkstream.toml`, then environment variables, then `--set`; the later wins."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import msgspec

from core.settings import DAY_MS, Duration
from streamer.errors import ConfigError
from streamer.settings import challenger, limits, placeholders, presets
from streamer.settings.secrets import is_secret
from streamer.settings.sections import ClickSettings, Config, KafkaValue

DEFAULT_FILE = Path("walkstream.toml")

_SECTIONS: dict[str, Any] = get_type_hints(Config)
_PASSED_ON = ("kafka", "registry")
"""Sections whose keys are those of a library."""
_TYPES: dict[str, Any] = {
    f"{section}.{key}": type_
    for section, cls in _SECTIONS.items()
    if section not in _PASSED_ON
    for key, type_ in get_type_hints(cls).items()
}
_WEIGHTS, _FIELDS = "events.weights", "clicks.fields"
_TYPES |= {f"{_FIELDS}.{name}": str for name in ClickSettings().fields}
_TABLES = {*_SECTIONS, _WEIGHTS, _FIELDS}

_NAME = re.compile(r"[\w-]*(\.[\w.]*)?", re.ASCII)
"""As much of a key as can be one of a library."""
_PLATFORM = re.compile(r"(SERVICE_(HOST|PORT\w*)|PORT(_\d+_\w+)?|NAME|ENV_\w+)", re.ASCII)
"""Ends of variables in which platforms tell of a service called walkstream-kafka."""

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_LONGEST_MS = 36_525 * DAY_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration(value: object) -> Duration:
    """A span from "30m", "14d", "1h30m", "500ms", or a bare number of seconds.

    Raises ValueError for anything else, and for spans below 0 or above 100 years.
    """
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        if isinstance(value, str) and _SPAN.sub("", value) == "" != value:
            ms = sum(float(number) * _UNITS_MS[unit] for number, unit in _SPAN.findall(value))
        else:
            ms = float(value) * 1000
    except (ValueError, OverflowError):
        raise ValueError(
            f"{value!r} is no duration: write 30m, 14d, 1h30m, 500ms, or a number of seconds"
        ) from None
    if not 0 <= ms <= _LONGEST_MS:
        raise ValueError(f"{value!r} is out of range: a duration is between 0 and 100 years")
    return Duration(round(ms))


def spelled(span: Duration) -> str:
    """What `duration` reads as this span, in the largest unit up to days: "90s", "7d", "0"."""
    units = ((unit, _UNITS_MS[unit]) for unit in ("d", "h", "m", "s", "ms"))
    return next((f"{span // ms}{unit}" for unit, ms in units if span and span % ms == 0), "0")


def start_time(position: str) -> int | None:
    """`start.position` in ms since the epoch; None for `earliest` and `latest`.

    A time without a zone is in UTC. Raises ValueError for anything else, and for times before 1970.
    """
    if position in ("earliest", "latest"):
        return None
    try:
        moment = datetime.fromisoformat(position)
    except ValueError:
        raise ValueError(
            f"{position!r} is neither earliest, latest nor a time such as 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    if ms < 0:
        raise ValueError(f"{position!r} is before 1970")
    return ms


class _Text(str):
    """A value from the environment or `--set`, whose TOML type is not known yet."""


def load(
    file: Path | None, overrides: Sequence[str], environ: Mapping[str, str],
    further: Mapping[str, Sequence[str]] = {},
) -> Config:  # fmt: skip
    """The configuration from `file`, then `environ`, then `overrides` ("section.key=value"), then
    `further` ones, by the option that they came with.

    Without `file`, `walkstream.toml` in the working directory is read if there is one.
    Raises ConfigError that names each wrong key and where it was set.
    """
    return load_with_origins(file, overrides, environ, further)[0]


def load_with_origins(
    file: Path | None, overrides: Sequence[str], environ: Mapping[str, str],
    further: Mapping[str, Sequence[str]] = {},
) -> tuple[Config, dict[str, str]]:  # fmt: skip
    """What `load` returns, and by key where it was set: the file, a variable, or the option.

    The keys are those of `leaves`; one without an origin has its default.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    given = [*_from_file(file), *_from_environ(environ), *_from_overrides(overrides, "--set")]
    for option, own in further.items():
        given += _from_overrides(own, option)
    for key, value, origin in [*_from_preset(given), *given]:
        if key == presets.KEY:
            origins[key] = origin
            continue
        for leaf, leaf_value in _flatten(key, _typed(key, value)):
            values[leaf], origins[leaf] = leaf_value, origin

    defaults = Config()
    tables: dict[str, dict[str, Any]] = {
        "kafka": dict(defaults.kafka),
        "registry": dict(defaults.registry),
        _WEIGHTS: dict(defaults.events.weights),
        _FIELDS: dict(defaults.clicks.fields),
    }
    sections: dict[str, dict[str, Any]] = {
        section: {} for section in _SECTIONS if section not in _PASSED_ON
    }
    problems = list(_with_one_underscore(environ))
    for key, value in values.items():
        if _is_passed_on(key) and shown_key(key) != key:
            problems.append((key, "there is no such property; write its name, then ="))
            continue
        try:
            converted = _converted(key, value)
        except ValueError as error:
            problems.append((key, str(error)))
            continue
        if key in placeholders.KEYS and placeholders.HOST in str(value):
            # Whoever copies what is in force to another machine sees that the name is of this one.
            origins[key] += f": {value}"
        table = next((name for name in tables if key.startswith(name + ".")), None)
        if table is not None:
            tables[table][key.removeprefix(table + ".")] = converted
        else:
            section, _, name = key.partition(".")
            sections[section][name] = converted
    refuse(problems, origins)
    sections["events"]["weights"] = tables[_WEIGHTS]
    sections["clicks"]["fields"] = tables[_FIELDS]
    built = {section: _SECTIONS[section](**given) for section, given in sections.items()}
    config = Config(kafka=tables["kafka"], registry=tables["registry"], **built)
    refuse(limits.problems(config), origins)
    refuse(challenger.problems(config), origins)
    if config.commit != built["commit"]:
        origins["commit.rounds"] = "round.max_seconds"
    return config, origins


def refuse(problems: Iterable[tuple[str, str]], origins: Mapping[str, str]) -> None:
    """ConfigError, if there are problems: each key, what is wrong with it, and where it was set."""
    lines = [
        f"{shown_key(key)}: {problem}" + (f" (from {origins[key]})" if key in origins else "")
        for key, problem in problems
    ]
    if len(lines) == 1:
        raise ConfigError(lines[0])
    if lines:
        raise ConfigError("\n  ".join([f"{len(lines)} settings are wrong:", *lines]))


def leaves(config: Config) -> dict[str, Any]:
    """Every value by its key, `kafka.bootstrap.servers` and `events.weights.*` among them."""
    out: dict[str, Any] = {}
    for section in fields(config):
        part = getattr(config, section.name)
        if not isinstance(part, dict):
            part = {field.name: getattr(part, field.name) for field in fields(part)}
        out |= _flatten(section.name, part)
    return out


def _from_preset(
    given: Sequence[tuple[str, Any, str]],
) -> Iterator[tuple[str, Any, str]]:
    """What the preset that was named last says, which everything else stands on top of."""
    names = [value for key, value, _ in given if key == presets.KEY]
    if names:
        name = str(names[-1]) if isinstance(names[-1], _Text) else names[-1]
        for key, value in presets.settings_of(name).items():
            yield key, value, f"{presets.KEY} {name}"


def _from_file(file: Path | None) -> Iterator[tuple[str, Any, str]]:
    path = file or DEFAULT_FILE
    if file is None and not path.exists():
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not TOML: {error}{_twice(str(error))}") from None
    for key, value in document.items():
        yield key, value, str(path)


def _twice(error: str) -> str:
    """What to do about an error of tomllib, if a section is there twice."""
    found = re.search(r"Cannot declare \((.*)\) twice", error)
    if found is None:
        return ""
    section = ".".join(re.findall(r"'([^']*)'", found[1]))
    return f": section [{section}] is there twice: merge the two"


def _from_environ(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    if (preset := environ.get("WALKSTREAM_PRESET")) is not None:
        yield presets.KEY, _Text(preset), "WALKSTREAM_PRESET"
    for variable, text in environ.items():
        # Container platforms set names such as WALKSTREAM_PORT for a service called walkstream,
        # so a name without the double underscore is none of ours.
        if not variable.startswith("WALKSTREAM_") or "__" not in variable:
            continue
        section, _, name = variable.removeprefix("WALKSTREAM_").lower().partition("__")
        name = name.replace("_", ".") if section in _PASSED_ON else name.replace("__", ".")
        yield f"{section}.{name}", _Text(text), variable


def _with_one_underscore(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that would be a setting with two underscores after its section."""
    known = {key.replace(".", "_"): key for key in (*_TYPES, *leaves(Config()))}
    for variable, text in environ.items():
        if not variable.startswith("WALKSTREAM_") or "__" in variable:
            continue
        if variable == "WALKSTREAM_PRESET":
            continue
        # A platform's address of a service called walkstream-metrics is no metrics.port.
        if re.match(r"\w+://", text):
            continue
        name = variable.removeprefix("WALKSTREAM_")
        section, _, rest = name.partition("_")
        if section.lower() in _PASSED_ON and rest and not _PLATFORM.fullmatch(rest):
            # Which properties there are, only the libraries know.
            yield variable, f"is no setting; did you mean WALKSTREAM_{section}__{rest}?"
        elif key := known.get(name.lower()):
            section, _, rest = key.upper().partition(".")
            rest = rest.replace(".", "__")
            yield variable, f"is no setting; did you mean WALKSTREAM_{section}__{rest}?"


def _from_overrides(overrides: Sequence[str], option: str) -> Iterator[tuple[str, Any, str]]:
    for override in overrides:
        key, text = split(override)
        yield key, _Text(text), option


def split(override: str) -> tuple[str, str]:
    """Key and value of `--set`. ConfigError, which shows no value, if it has no equals sign.

    What is passed on keeps its blanks, unless there are some before the equals sign too.
    """
    key, equals, text = override.partition("=")
    key = key.replace('"', "")  # as TOML has keys with dots in them, and messages of ours
    if not equals:
        raise ConfigError(f"--set {_before_value(override)}: write --set section.key=value")
    is_exact = _is_passed_on(key) and key == key.rstrip()
    return key.strip(), text if is_exact else text.strip()


def _before_value(override: str) -> str:
    """What of a `--set` without an equals sign surely is no secret."""
    shown = shown_key(override)
    if is_secret(override) and shown == override:
        shown = override.partition(".")[0]  # nobody can tell where a key ends that has no sign
    if "." not in override:
        shown = ""
    return shown if shown == override else f"{shown} ..."


def shown_key(key: str) -> str:
    """A key without what may be a secret that followed it by a wrong sign."""
    section = key.partition(".")[0]
    is_own = section in _SECTIONS and section not in _PASSED_ON
    found = None if is_own else _NAME.match(key)
    return key if found is None else found[0]


def _is_passed_on(key: str) -> bool:
    """Whether it is a key of a section that a library gets."""
    return key.startswith(tuple(f"{section}." for section in _PASSED_ON))


def _typed(key: str, value: Any) -> Any:
    """Text as the TOML value it spells, unless the key holds text: `app.instance=1` is "1"."""
    if not isinstance(value, _Text):
        return value
    text = str(value)
    if _is_passed_on(key):
        return text  # a password may be in quotes, or look like a number
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    type_ = _type_of(key)
    holds_text = type_ in (str, KafkaValue) or get_origin(type_) is Literal
    parsed = document["value"]
    if len(document) > 1 or (holds_text and not isinstance(parsed, str)):
        return text
    return parsed


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    # An empty table of a wrong name is kept, so that it is refused like any unknown key.
    if isinstance(value, dict) and (value or key in _TABLES):
        for name, inner in value.items():
            yield from _flatten(f"{key}.{name}", inner)
    else:
        yield key, value


def _type_of(key: str) -> Any:
    section, _, name = key.partition(".")
    if section in _PASSED_ON:
        return KafkaValue if name else None
    return float if key.startswith(_WEIGHTS + ".") else _TYPES.get(key)


def _converted(key: str, value: Any) -> Any:
    """The value as its setting has it. ValueError for a wrong value or key."""
    type_ = _type_of(key)
    # Libraries have no such key, and the name of a preset is no weight.
    if type_ is None or (_is_preset(key) and value in tuple(presets.PRESETS)):
        raise ValueError(f"there is no such setting{_hint(key)}")
    if get_origin(type_) is Literal and value not in type_.__args__:
        raise ValueError(f"{value!r} is none of {', '.join(type_.__args__)}")
    if type_ is str and isinstance(value, date):
        value = value.isoformat()  # TOML has dates and times of its own
    try:
        # Strict for Kafka: a password such as "007" must stay the text it is.
        strict = type_ is KafkaValue
        value = msgspec.convert(value, type_, strict=strict, dec_hook=lambda _, v: duration(v))
    except msgspec.ValidationError as error:
        # `duration` quotes the value itself; what a library is given may be a secret.
        is_told = error.__cause__ is not None or type_ is KafkaValue
        raise ValueError(str(error) if is_told else f"{value!r} is wrong: {error}") from None
    if key == "start.position":
        start_time(value)
    return placeholders.filled(value) if key in placeholders.KEYS else value


_GONE = {
    "model.alpha": "negatives.alpha is it, with negatives.kind = popularity",
    "model.hardest_of": "negatives.draws is it, with negatives.kind = scored",
    "topics.vector_deltas": "take the line out: evidence is in topics.transitions, and the topic "
    "of this name is of no use any more",
}
"""Settings of older versions, and what became of them."""


def _is_preset(key: str) -> bool:
    """Whether it can only be meant as the setting above all sections."""
    return key.rpartition(".")[2] == presets.KEY and key not in _TYPES


def _hint(key: str) -> str:
    """The nearest known key, or what there is to choose from."""
    section, _, name = key.partition(".")
    if _is_preset(key):
        return (
            f"; {presets.KEY} is in no section: in a file it stands above the first one, on the "
            f"command line it is --set {presets.KEY}=NAME, and WALKSTREAM_PRESET is the variable"
        )
    if key in _GONE:
        return f" any more: {_GONE[key]}"
    if key.rstrip(".") in _SECTIONS:
        return f"; it is a section: write {section}.name = value"
    if section not in _SECTIONS and (near := difflib.get_close_matches(section, _PASSED_ON, n=1)):
        return f"; did you mean {near[0]}.{name}?"
    same_name = [known for known in _TYPES if known.endswith("." + key.rpartition(".")[2])]
    nearest = difflib.get_close_matches(key, _TYPES, n=1, cutoff=0.7) or same_name
    nearest = nearest or difflib.get_close_matches(key, [presets.KEY], n=1, cutoff=0.7)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    if key.startswith(_FIELDS + "."):
        return f"{hint}; the fields of a click are {', '.join(ClickSettings().fields)}"
    return hint or f"; the sections are {', '.join(_SECTIONS)}"
