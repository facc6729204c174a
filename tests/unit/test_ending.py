"""The end of a process whose main thread is in a call of C that no handler of Python interrupts."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

BLOCKS = """
import ctypes, signal
from streamer import ending

watch = ending.watch()
signal.signal(signal.SIGTERM, lambda number, frame: None)
libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(64)

def end():
    print("too late", flush=True)
    {stalls}
    return 7

{more}
print("ready", flush=True)
libc.pthread_mutex_lock(lock)
libc.pthread_mutex_lock(lock)
"""


@pytest.fixture
def blocked(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    more, stalls = request.param
    program = BLOCKS.format(more=more, stalls=stalls)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def output(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.read()


@pytest.mark.parametrize("blocked", [("", "pass")], indirect=True)
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_process_that_hears_none(
    blocked: subprocess.Popen[str], second: int
) -> None:
    blocked.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        blocked.wait(0.5)
    blocked.send_signal(second)
    assert blocked.wait(10) == 128 + second
    assert output(blocked) == "ended by a second signal\n"


FROM_THE_FIRST = "watch.on_first = lambda: watch.within(0.3, end)"
THE_FIRST_DEADLINE_STAYS = "watch.within(0.3, None); watch.within(60, end)"


@pytest.mark.parametrize(
    ("blocked", "code"),
    [
        ((FROM_THE_FIRST, "pass"), 7),
        ((THE_FIRST_DEADLINE_STAYS, "pass"), 7),
        ((FROM_THE_FIRST, "libc.pause()"), 1),
    ],
    indirect=["blocked"],
)
def test_a_deadline_ends_it_even_where_nobody_takes_its_last_words(
    blocked: subprocess.Popen[str], code: int
) -> None:
    time.sleep(0.1)
    blocked.send_signal(signal.SIGTERM)
    assert blocked.wait(10) == code
    assert output(blocked) == "too late\n"
