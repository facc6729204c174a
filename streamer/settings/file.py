"""An annotated `walkstream.toml` of all settings, made from their declarations."""

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import core.settings
import streamer.settings.sections
from core.settings import Duration
from streamer.errors import ConfigError
from streamer.settings import presets
from streamer.settings.load import spelled
from streamer.settings.sections import Config

WIDTH = 100
STDOUT = Path("-")

_FIRST = ("kafka", "topics", "clicks", "events", "session", "graph", "state")
"""Sections that most people look into; they come first."""
_ACTIVE = {
    *(f"topics.{name}" for name in ("clicks", "items", "item_vectors", "model_state")),
    *("topics.transitions", "topics.dead_letters"),
    *("clicks.format", "clicks.time_unit"),
    *("session.gap", "graph.half_life", "state.dir"),
}
"""What most people change. These are written as settings, the others as comments."""
_EXAMPLES = {
    "kafka": {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "walkstream",
        "sasl.password": "...",
    },
    "registry": {"url": "http://localhost:8081", "basic.auth.user.info": "user:password"},
}
"""Keys of libraries that many need, none of them a default."""
_HEAD = """\
Settings of Walkstream. A line that begins with # and a name shows a default (an example in [kafka]
and [registry]): take the # away to change it. Above this file come environment variables such as
WALKSTREAM_GRAPH__HALF_LIFE=14d, and above those --set graph.half_life=14d. Durations are written
30m, 14d, 1h30m, 500ms, or as a number of seconds. `walkstream config` prints what is in force.
"""
FIRST = next(iter(presets.PRESETS))
_PRESET = f"""\
A method of the field by its name, which the settings below stand on top of: one of
{", ".join(presets.PRESETS)}.
"""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def meanings() -> dict[str, str]:
    """The text below each field of the settings classes, on one line, by key (`graph.half_life`).

    The sections that are passed on to a library have theirs too, by their name (`kafka`).
    """
    said: dict[tuple[str, str], str] = {}
    for module in (core.settings, streamer.settings.sections):
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                for field, text in zip(node.body, node.body[1:], strict=False):
                    if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                        words = str(ast.literal_eval(text.value)).split()
                        said[node.name, ast.unparse(field.target)] = " ".join(words)
    out = {}
    for section, cls in get_type_hints(Config).items():
        if ("Config", section) in said:
            out[section] = said["Config", section]
        else:
            out |= {f"{section}.{f.name}": said[cls.__name__, f.name] for f in fields(cls)}
    return out


def toml(value: object) -> str:
    """A value of a setting as `walkstream.toml` has it: `"30m"`, `true`, `["a", "b"]`."""
    if isinstance(value, Duration):
        value = spelled(value)
    elif isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", r"\u007f")


def template() -> str:
    """The annotated file. It loads as the defaults, with any of its settings uncommented too."""
    config, said = Config(), meanings()
    names = [section.name for section in fields(Config)]
    lines = [*_comment(_HEAD), "", *_comment(_PRESET), f"#{assignment(presets.KEY, FIRST)}"]
    for section in sorted(names, key=lambda name: _FIRST.index(name) if name in _FIRST else 99):
        part = getattr(config, section)
        lines += _table(section, part, said) if isinstance(part, dict) else _section(section, said)
    return "\n".join(lines) + "\n"


def _section(section: str, said: dict[str, str]) -> Iterator[str]:
    """Lines of a section: what is active, then what is not, then its tables, as TOML wants it."""
    part = getattr(Config(), section)
    types = get_type_hints(type(part))
    values = {f"{section}.{f.name}": getattr(part, f.name) for f in fields(part)}
    yield from ("", f"[{section}]")
    for key in sorted(values, key=lambda key: key not in _ACTIVE):
        name = key.partition(".")[2]
        if not isinstance(values[key], dict):
            yield from _comment(said[key] + _choices(types[name]))
            yield ("" if key in _ACTIVE else "#") + assignment(name, values[key])
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _table(key, value, said)


def _table(key: str, values: dict[str, Any], said: dict[str, str]) -> Iterator[str]:
    """Lines of a table whose names are not ours alone."""
    yield from ("", *_comment(said[key]), f"[{key}]")
    yield from (assignment(name, value) for name, value in values.items())
    yield from ("#" + assignment(name, text) for name, text in _EXAMPLES.get(key, {}).items())


def assignment(name: str, value: object) -> str:
    """A line of the file."""
    return f"{name if _BARE_KEY.fullmatch(name) else toml(name)} = {toml(value)}"


def _choices(type_: Any) -> str:
    return f" One of {', '.join(get_args(type_))}." if get_origin(type_) is Literal else ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def run(file: Path, force: bool) -> None:
    """Write the annotated file, `-` for standard output. ConfigError if it exists, or cannot be."""
    if file == STDOUT:
        sys.stdout.write(template())
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(template())
    except FileExistsError:
        raise ConfigError(f"{file}: is there already; --force writes over it") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    print(f"wrote {file}; edit it, then see what is in force with: walkstream config")
