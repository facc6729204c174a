"""Topics that were there before Walkstream, taken in by settings alone."""

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import islice
from pathlib import Path

import fastavro
import msgspec

from streamer.demo.shop import Shop
from tests.support import START_MS, App

SCHEMA = {
    "type": "record",
    "name": "PageView",
    "fields": [
        {"name": "visitor", "type": {"type": "record", "name": "V", "fields": [
            {"name": "id", "type": "long"}, {"name": "country", "type": ["null", "string"]}]}},
        {"name": "product", "type": {"type": "record", "name": "P", "fields": [
            {"name": "sku", "type": "string"}]}},
        {"name": "occurredAt", "type": "long"},
        {"name": "action", "type": "string"},
        {"name": "weight", "type": "double"},
    ],
}  # fmt: skip
SCHEMA_ID = 7
SECONDS: dict[str, object] = {
    "topics.partitions": 2,
    "clicks.time_unit": "s",
    "clicks.fields.user_id": "visitor.id",
    "clicks.fields.item_id": "product.sku",
    "clicks.fields.ts": "occurredAt",
    "clicks.fields.event_type": "action",
    "clicks.fields.weight": "",  # here it is the weight of the product in kilograms
    "events.weights.page_view": 1,
}
CLICKS = list(islice(Shop(5, products=60, users=40).clicks(START_MS, 0.5), 1500))


def foreign(click: dict[str, object]) -> dict[str, object]:
    return {
        "visitor": {"id": int(str(click["user_id"]).removeprefix("user-")), "country": None},
        "product": {"sku": click["item_id"]},
        "occurredAt": int(str(click["ts"])) // 1000,
        "action": "page_view",
        "weight": -1.5,
    }


def avro(record: dict[str, object], schema_id: int = SCHEMA_ID) -> bytes:
    out = BytesIO(struct.pack(">bI", 0, schema_id))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(SCHEMA), record)
    return out.getvalue()


@contextmanager
def registry() -> Iterator[str]:
    """A stand-in for a schema registry: it knows one schema."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.startswith(f"/schemas/ids/{SCHEMA_ID}?") or self.path.endswith(
                f"/schemas/ids/{SCHEMA_ID}"
            )
            body = {"schema": json.dumps(SCHEMA)} if known else {"error_code": 40403, "message": ""}
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the output of a test is for what went wrong."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def learned(app: App) -> set[str]:
    values = [m.value() for m in app.read(app.config.topics.item_vectors)]
    return {msgspec.json.decode(value)["item_id"] for value in values if value is not None}


def assert_all_learned(app: App) -> None:
    assert learned(app) == {str(click["item_id"]) for click in CLICKS}
    newest = max(int(str(click["ts"])) // 1000 * 1000 for click in CLICKS)
    assert {p.time for p in app.progress().values()} == {newest}


def test_avro_with_foreign_names_and_seconds(kafka: str, tmp_path: Path) -> None:
    with registry() as url:
        settings = {**SECONDS, "clicks.format": "avro", "registry.url": url}
        with App(kafka, tmp_path, settings) as app:
            records = [(str(c["user_id"]).encode(), avro(foreign(c))) for c in CLICKS]
            unknown = b"k", avro(foreign(CLICKS[0]), schema_id=8)
            app.publish([*records, unknown, (b"k", b"\0\0")])
            app.run_to_end()
            assert_all_learned(app)
            letters = app.read(app.config.topics.dead_letters)
            assert {letter.value() for letter in letters} == {unknown[1], b"\0\0"}


def test_a_registry_that_does_not_answer_ends_the_worker_and_loses_nothing(
    kafka: str, tmp_path: Path
) -> None:
    with registry() as url:
        settings = {**SECONDS, "clicks.format": "avro", "registry.url": url}
        with App(kafka, tmp_path, settings) as app:
            app.publish([(str(c["user_id"]).encode(), avro(foreign(c))) for c in CLICKS])
            worker = app.worker(registry__url="http://127.0.0.1:9")
            assert worker.wait() == 1, worker.output
            assert "registry" in worker.output
            assert not app.read(app.config.topics.dead_letters)
            app.run_to_end()
            assert_all_learned(app)


def test_lines_of_json_that_pack_the_clicks_of_a_user(kafka: str, tmp_path: Path) -> None:
    with App(kafka, tmp_path, SECONDS) as app:
        by_user: dict[str, list[bytes]] = {}
        for click in CLICKS:
            by_user.setdefault(str(click["user_id"]), []).append(
                json.dumps(foreign(click)).encode()
            )
        records = [
            (user.encode(), b"\n".join(lines[at : at + 5]))
            for user, lines in by_user.items()
            for at in range(0, len(lines), 5)
        ]
        spoilt = json.dumps(foreign(CLICKS[0])).encode() + b"\n{broken\n"
        app.publish([*records, (b"user-0", spoilt)])
        app.run_to_end()
        assert_all_learned(app)
        (letter,) = app.read(app.config.topics.dead_letters)
        assert letter.value() == b"{broken"
        assert dict(letter.headers() or [])["source.part"] == b"1"
