"""Peers that need an environment of their own, because they pin old versions or many packages."""

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamer.errors import WalkstreamError
from streamer.terminal import Console

HOME = Path.home() / ".cache" / "walkstream" / "peers"
"""Where the environments are kept: delete it to have them made anew."""


def python_with(name: str, *requirements: str) -> Path:
    """The interpreter of an environment that holds these packages; made when first asked for.

    WalkstreamError, with pip's words, if they cannot be installed.
    """
    folder = HOME / name
    python = folder / "bin" / "python"
    done = folder / "requirements.txt"
    wanted = "\n".join(requirements) + "\n"
    if not done.exists() or done.read_text() != wanted:
        Console(stderr=True).print(f"installing {', '.join(requirements)} into {folder}")
        venv.create(folder, clear=True, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", *requirements]
        tried = subprocess.run(command, capture_output=True, text=True)
        if tried.returncode != 0:
            raise WalkstreamError(
                f"{', '.join(requirements)} could not be installed, so there is nothing to compare "
                f"with: {tried.stderr.strip()[-500:]}"
            )
        done.write_text(wanted)
    return python


class Peer:
    """A script in another interpreter that answers one line of JSON with another."""

    def __init__(self, process: "subprocess.Popen[str]", name: str) -> None:
        self._process, self._name = process, name

    def ask(self, question: Any) -> Any:
        """The answer. WalkstreamError if the script ended instead."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        answer = stdout.readline()
        if not answer:
            raise WalkstreamError(f"{self._name} ended with {self._process.wait()}, see above")
        return json.loads(answer)


@contextmanager
def running(python: Path | None, script: Path, *arguments: str) -> Iterator[Peer]:
    """The peer, running `script`; without `python` in this interpreter's environment."""
    command = [str(python or sys.executable), str(script), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Peer(process, script.stem)
    finally:
        process.kill()
        process.wait()
