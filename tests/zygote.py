"""The process whose forks are commands of the CLI (`tests.forks`); its argument is a socket."""

import gc
import json
import os
import runpy
import socket
import sys
from contextlib import suppress
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as `main` does, before numpy is imported

from streamer import cli
from streamer.worker import run as run
from tests.support import compile_kernels


def _forks(asks: socket.socket) -> str:
    """Serve until the end of the asks. In each fork it returns what was asked of it."""
    lines = asks.makefile()
    while line := lines.readline():
        reader, writer = os.pipe()
        between = os.fork()
        if not between:
            if child := os.fork():
                os.write(writer, b"%d" % child)
                os._exit(0)
            os.close(reader)
            os.close(writer)
            return line
        # Once it has ended, its child has another parent.
        os.waitpid(between, 0)
        os.close(writer)
        asks.sendall(os.read(reader, 32) + b"\n")
        os.close(reader)
    sys.exit()


def _become(line: str) -> Path | None:
    """Take over what a new process would have been given. Returns the program to run."""
    program, arguments, folder, environ, log = json.loads(line)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(out, number)
    os.close(out)
    sys.argv[1:] = arguments
    return Path(program) if program else None


if __name__ == "__main__":
    with suppress(SystemExit):
        cli.app(["init", "-"])  # so that what reads arguments is imported
    compile_kernels()
    gc.freeze()  # so that no fork copies pages to look for cycles
    with socket.socket(fileno=int(sys.argv[1])) as asks:
        asked = _forks(asks)
    if path := _become(asked):
        runpy.run_path(str(path), run_name="__main__")
    else:
        cli.main()
