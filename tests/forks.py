"""Commands of the CLI that begin with all imported: forks of a process that imports once.

Most of the CPU of a worker's short life goes into imports and into loading kernels. A fork has a
pid, signals and an exit code of its own, and is a child of the test as one that `subprocess` starts
is; `main` runs in it from its first line. The first of each command is a real one, as forks show no
import. Of two processes that fork in turns each has its own seed of Python's hashes, on which
nothing may depend.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PR_SET_CHILD_SUBREAPER = 36  # of Linux, prctl(2)
ZYGOTES = 2


class Fork:
    """A child as `subprocess.Popen` has it, as far as tests use that."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that forks. It ends when this one does, or closes its end of the socket."""

    def __init__(self) -> None:
        # Orphans become children of this process.
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.zygote", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._asks, self._answers = ours.makefile("w"), ours.makefile()

    def fork(
        self, program: Path | None, arguments: Sequence[str], folder: Path,
        environ: Mapping[str, str], log: Path,
    ) -> Fork:  # fmt: skip
        """Run a program that ends in `main`, or `main` alone, in a folder; it prints to `log`."""
        ask = [str(program or ""), list(arguments), str(folder), dict(environ), str(log)]
        print(json.dumps(ask), file=self._asks, flush=True)
        return Fork(int(self._answers.readline()))


class Commands:
    """Who starts the next command of the CLI."""

    def __init__(self) -> None:
        self._zygotes: deque[Zygote] = deque()
        self._met: set[str] = set()

    def next(self, command: str) -> Zygote | None:
        """None for a real one; there is no other but on Linux."""
        if command not in self._met or sys.platform != "linux":
            self._met.add(command)
            return None
        if len(self._zygotes) < ZYGOTES:
            self._zygotes.append(Zygote())
        self._zygotes.rotate()
        return self._zygotes[0]
