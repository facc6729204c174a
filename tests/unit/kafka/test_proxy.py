"""The proxy with which tests hold, change and lose what Kafka and its clients say."""

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from proxy import END_TXN, FETCH, LIST_OFFSETS, REQUEST, RESPONSE, Proxy

API, CORRELATION = struct.Struct(">hhi"), struct.Struct(">i")


class Server:
    """Answers each request with its correlation id and `re:` before its text."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.got: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        while data := receive(line):
            self.got.append(data[12:])  # behind the client id "me"
            send(line, data[4:8] + b"re:" + data[12:])


def send(line: socket.socket, data: bytes) -> None:
    line.sendall(struct.pack(">i", len(data)) + data)


def receive(line: socket.socket) -> bytes:
    """The next frame; empty if the line broke."""
    try:
        head = line.recv(4, socket.MSG_WAITALL)
        size, data = struct.unpack(">i", head)[0] if head else 0, b""
        # A line with a time-out does not wait for all.
        while len(data) < size and (more := line.recv(size - len(data))):
            data += more
        return data
    except OSError:
        return b""


class Client:
    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self.line = socket.create_connection((host, int(port)), timeout=5)
        self.correlation = 0

    def ask(self, api: int, text: bytes) -> None:
        self.correlation += 1
        send(self.line, API.pack(api, 3, self.correlation) + struct.pack(">h", 2) + b"me" + text)

    def answer(self) -> bytes:
        """The text of the next response; empty if the line broke."""
        return receive(self.line)[4:]

    def is_silent(self, seconds: float = 0.1) -> bool:
        self.line.settimeout(seconds)
        try:
            return not self.line.recv(1, socket.MSG_PEEK) and False
        except TimeoutError:
            return True
        finally:
            self.line.settimeout(5)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.listener.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.address) as proxy:
        yield proxy


def test_what_no_rule_takes_passes_and_is_counted(proxy: Proxy, server: Server) -> None:
    client = Client(proxy.address)
    for text in (b"a", b"b" * 100_000):
        client.ask(FETCH, text)
        assert client.answer() == b"re:" + text
    assert server.got == [b"a", b"b" * 100_000]
    assert proxy.requests == {("me", FETCH): 2}


def test_a_held_response_comes_later_and_other_lines_pass(proxy: Proxy) -> None:
    rule = proxy.hold(LIST_OFFSETS, RESPONSE, seconds=0.3)
    client, other = Client(proxy.address), Client(proxy.address)
    began = time.monotonic()
    client.ask(LIST_OFFSETS, b"end?")
    client.ask(FETCH, b"behind it")
    other.ask(FETCH, b"at once")
    assert other.answer() == b"re:at once"
    assert time.monotonic() - began < 0.3
    assert client.answer() == b"re:end?"
    assert time.monotonic() - began >= 0.3
    assert client.answer() == b"re:behind it"
    assert [frame.client for frame in rule.caught] == ["me"]


def test_each_held_frame_waits_from_its_own_arrival_on(proxy: Proxy) -> None:
    proxy.hold(LIST_OFFSETS, RESPONSE, seconds=0.4)
    client, began = Client(proxy.address), time.monotonic()
    for text in (b"1", b"2", b"3"):
        client.ask(LIST_OFFSETS, text)
    assert [client.answer() for _ in range(3)] == [b"re:1", b"re:2", b"re:3"]
    assert 0.4 <= time.monotonic() - began < 0.8


def test_a_held_frame_may_be_overtaken(proxy: Proxy) -> None:
    rule = proxy.hold(LIST_OFFSETS, RESPONSE, overtaken=True)
    client = Client(proxy.address)
    client.ask(LIST_OFFSETS, b"end?")
    client.ask(FETCH, b"behind it")
    assert client.answer() == b"re:behind it"
    rule.release()
    assert client.answer() == b"re:end?"


def test_a_rule_takes_so_many_frames_and_those_that_are_meant(proxy: Proxy) -> None:
    proxy.swallow(FETCH, RESPONSE, times=1, where=lambda frame: frame.data.endswith(b"x"))
    client = Client(proxy.address)
    for text in (b"1", b"2x", b"3x"):
        client.ask(FETCH, text)
    assert [client.answer(), client.answer()] == [b"re:1", b"re:3x"]


def test_the_old_frame_of_a_cut_line_is_freed_after_the_retry(proxy: Proxy, server: Server) -> None:
    rule = proxy.hold(END_TXN, REQUEST, times=1)
    client = Client(proxy.address)
    client.ask(END_TXN, b"old")
    rule.wait()
    rule.cut()
    assert client.answer() == b""
    again = Client(proxy.address)
    again.ask(END_TXN, b"new")
    assert again.answer() == b"re:new"
    assert server.got == [b"new"]
    rule.release()
    deadline = time.monotonic() + 5
    while len(server.got) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.got == [b"new", b"old"]


def test_a_swallowed_response_leaves_the_line_and_a_broken_one_does_not(
    proxy: Proxy, server: Server
) -> None:
    client = Client(proxy.address)
    rule = proxy.swallow(FETCH, RESPONSE)
    client.ask(FETCH, b"lost")
    rule.wait()
    assert client.is_silent()
    rule.remove()
    client.ask(FETCH, b"found")
    assert client.answer() == b"re:found"
    proxy.break_lines(END_TXN, RESPONSE)
    client.ask(END_TXN, b"gone")
    assert client.answer() == b""
    assert server.got == [b"lost", b"found", b"gone"]


def test_frames_change_on_the_way(proxy: Proxy) -> None:
    proxy.change(FETCH, RESPONSE, lambda frame: frame.data[:4] + b"other", times=1)
    client = Client(proxy.address)
    client.ask(FETCH, b"")
    client.ask(FETCH, b"")
    assert [client.answer(), client.answer()] == [b"other", b"re:"]


def test_without_a_target_lines_break(server: Server) -> None:
    with Proxy() as proxy:
        client = Client(proxy.address)
        client.ask(FETCH, b"")
        assert client.answer() == b""
