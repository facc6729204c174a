"""A Kafka with TLS, logins and rights: what is said where one of them is wrong.

The README's table of rights is enough, and all of it is needed: each case is a user of its own, who
has the rights of a command, or all of them but one.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from streamer import cli
from streamer.errors import WalkstreamError
from streamer.kafka import clients, rights
from streamer.settings.load import load
from streamer.settings.sections import Config, TopicSettings
from streamer.watch import log
from tests.brokers import need_jars
from tests.secured import PASSWORD, Grant, Secured, certificate, secured
from tests.support import ROOT, START_MS, App, Process, as_records, wait_until

FILE = "user_id,item_id,ts\nu,a,1700000000000\nu,b,1700000001000\n"
ITEMS = "item_id,category\na,x\n"
ARGUMENTS = {
    "publish": ["publish", "clicks.csv"],
    "publish --items": ["publish", "--items", "items.csv"],
    "publish --synthetic": ["publish", "--synthetic", "--seconds", "1"],
    "check-topic": ["check-topic", "topics.clicks"],
    "export": ["export", "--from-topic", "--out", "vectors.npz", "--force"],
    "dlq replay": ["dlq", "replay", "--all"],
    "forget": ["forget", "somebody"],
    "forget --undo": ["forget", "--undo", "nobody"],
    "hand-over": ["hand-over", "--from", "app.name"],
    "reset --topics": ["reset", "--topics", "--yes"],
}
"""Of commands that need more than their name."""

ALL_TOPICS = [f"topics.{key}" for key, name in vars(TopicSettings()).items() if type(name) is str]


def table() -> dict[str, list[Grant]]:
    """By command: operation, type of resource, and the setting that names the resource."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = text.partition("<!-- rights -->\n")[2].partition("<!-- /rights -->")[0].splitlines()[2:]
    out: dict[str, list[Grant]] = {}
    for row in rows:
        command, operation, resource, names = (cell.strip() for cell in row.split("|")[1:-1])
        for name in re.findall(r"`([^`]+)`", names):
            for one in ALL_TOPICS if name == "topics.*" else (name,):
                out.setdefault(command.strip("`"), []).append((operation, resource, one))
    return out


TABLE = table()
SETTINGS = {"topics.partitions": 2, "commit.seconds": 0.2, "user_vectors.kind": "mean"}
CLICKS = as_records(
    {"user_id": f"u{n % 3}", "item_id": f"i{n % 5}", "ts": START_MS + 1000 * n} for n in range(100)
)


class Case:
    """A command, as a user who has the rights of it, but for one."""

    def __init__(self, app: App, command: str, without: int | None) -> None:
        self.command = command
        self.user = re.sub(r"\W+", "-", f"{command}-{without}")
        self.settings = {key: str(value) for key, value in app.settings.items()}
        if command == "topics create":  # what is there needs no right to be made
            for key in self.settings:
                if key.startswith("topics.") and key != "topics.partitions":
                    self.settings[key] = f"{self.user}-{key.replace('_', '-')}"
        if command == "reset --topics":
            self.settings["state.dir"] = f"{app.state}-none"
        named = [(one[0], one[1], self.name(one[2])) for one in TABLE[command]]
        self.grants = [grant for n, grant in enumerate(named) if n != without]
        self.missing = named[without or 0]

    def name(self, setting: str) -> str:
        if setting.startswith("topics."):
            return self.settings[setting]
        instance = setting.replace("app.instance", "0")
        return instance.replace("app.name", self.settings["app.name"])

    def options(self, cluster: Secured) -> list[str]:
        given = self.settings | {f"kafka.{k}": v for k, v in cluster.client(self.user).items()}
        arguments = ARGUMENTS.get(self.command, self.command.split())
        named = [self.settings.get(argument, argument) for argument in arguments]
        if self.command == "hand-over":
            given["app.name"] += "-new"
        return [*named, *(f"--set={key}={value}" for key, value in given.items())]

    def run(self, cluster: Secured, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
        """Exit code and output, in this process; of a worker as far as it asks before it begins."""
        capfd.readouterr()
        try:
            if self.command == "worker":
                overrides = [one.removeprefix("--set=") for one in self.options(cluster)[1:]]
                with rights.allowed(load(None, overrides, {}), "worker"):
                    pass
            else:
                cli.app(self.options(cluster), prog_name="walkstream", standalone_mode=False)
            code = 0
        except Exception as error:
            code = log.end(error)
        told = capfd.readouterr()
        return code, told.out + told.err

    def assert_refused(self, code: int, told: str) -> None:
        operation, resource, name = self.missing
        assert code == 3, (self.missing, told)
        assert f" may not {operation} on {resource} {name}. " in told, (self.missing, told)
        assert "Traceback" not in told
        assert "estart the worker" not in told

    def worker(self, cluster: Secured, app: App, **changed: object) -> Process:
        """A worker as a process of its own."""
        login = cluster.client(self.user).items()
        return app.worker(
            **{f"kafka__{key.replace('.', '__')}": value for key, value in login}, **changed
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    need_jars()
    with secured(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def app(cluster: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Clicks, and a dead letter of each topic that a worker reads."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "clicks.csv").write_text(FILE)
    (folder / "items.csv").write_text(ITEMS)
    with App(cluster.plain, folder, SETTINGS) as app:
        app.publish([*CLICKS, (b"u", b"no click")])
        app.describe([(b"i1", b"no item")])
        yield app


@pytest.fixture(scope="module")
def cases(app: App, cluster: Secured) -> dict[str, list[Case]]:
    """By command, the case that lacks nothing first."""
    out = {
        command: [Case(app, command, n) for n in (None, *range(len(grants)))]
        for command, grants in TABLE.items()
    }
    cluster.let_in({case.user: case.grants for one in out.values() for case in one})
    return out


def letters(app: App) -> int:
    return sum(app.ends(app.config.topics.dead_letters).values())


def test_the_table_is_enough_for_a_worker(
    app: App, cluster: Secured, cases: dict[str, list[Case]]
) -> None:
    worker = cases["worker"][0].worker(cluster, app).running()
    worker.until(lambda: app.caught_up() and letters(app) >= 2, "clicks and letters committed")
    worker.stop()
    forgetting = app.command("forget", "somebody")  # `reset --topics` has to keep this
    assert forgetting.wait() == 0, forgetting.output


def codecs(cluster: Secured, topic: str) -> set[int]:
    """How the batches of a topic are compressed (0: not, 1: gzip), markers included."""
    out = set()
    for file in cluster.data.glob(f"{topic}-*/*.log"):
        data, at = file.read_bytes(), 0
        while at + 23 <= len(data):
            out.add(data[at + 22] & 7)
            at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    return out


def test_every_client_reads_what_a_worker_sends(app: App, cluster: Secured) -> None:
    sent = app.config.topics
    for topic in (sent.item_vectors, sent.model_state, sent.dead_letters):
        assert codecs(cluster, topic) == {0}


@pytest.mark.parametrize("command", [*TABLE][1:-2])
def test_the_table_is_enough(
    command: str, app: App, cluster: Secured, cases: dict[str, list[Case]],
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(app.folder)
    code, told = cases[command][0].run(cluster, capfd)
    assert code == 0, told
    if command == "publish --items":
        assert codecs(cluster, app.config.topics.items) <= {0, 1}


UNSEEN = ("publish", "publish --items", "publish --synthetic", "check-topic", "dlq replay")
"""Without asking before, these take a topic that they may not see for one that is not there."""


@pytest.mark.parametrize("command", TABLE)
def test_a_right_that_is_missing_is_named_before_anything_is_done(
    command: str, app: App, cluster: Secured, cases: dict[str, list[Case]],
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(app.folder)
    before = app.admin.list_topics(timeout=10).topics.keys()
    for case in cases[command][1:]:
        # Transactional ids cannot be asked for.
        if (command, case.missing[1]) != ("worker", "transactional id"):
            case.assert_refused(*case.run(cluster, capfd))
    assert app.admin.list_topics(timeout=10).topics.keys() == before


def test_each_right_is_needed_and_named_by_a_worker_that_did_not_ask(
    app: App, cluster: Secured, cases: dict[str, list[Case]]
) -> None:
    for case in cases["worker"][1:]:
        if case.missing[0] != "DescribeConfigs":  # only read where topics are checked
            worker = case.worker(cluster, app, topics__check=False)

            def refused(worker: Process = worker) -> bool:
                # Something to commit, and more: a commit is read back before the next one.
                app.publish([*CLICKS[:2], (b"u", b"no click")])
                time.sleep(0.5)
                return worker.popen.poll() is not None

            wait_until(refused, f"refused without {case.missing}")
            case.assert_refused(worker.wait(), worker.output)


@pytest.mark.parametrize("command", [*TABLE][1:])
def test_each_right_is_needed_and_named_where_nobody_asked(
    command: str, app: App, cluster: Secured, cases: dict[str, list[Case]],
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """As when it is taken away while a command runs."""
    monkeypatch.chdir(app.folder)
    monkeypatch.setattr(rights, "require", lambda *_: None)
    for case in cases[command][1:]:
        code, told = case.run(cluster, capfd)
        if command in UNSEEN:
            assert code in (2, 3), told
        else:
            case.assert_refused(code, told)
    if command == "hand-over":  # the table is enough for this too, and then the model is another's
        code, told = cases[command][0].run(cluster, capfd)
        assert code == 0, told


def test_the_table_is_enough_for_a_reset(
    cases: dict[str, list[Case]], cluster: Secured, capfd: pytest.CaptureFixture[str]
) -> None:
    code, told = cases["reset --topics"][0].run(cluster, capfd)
    assert code == 0, told


REFUSALS = {
    "wrong password": r"the login was refused .*check kafka\.sasl\.username and kafka\.sasl\.pass",
    "unknown user": r"the login was refused .*check kafka\.sasl\.username and kafka\.sasl\.pass",
    "wrong mechanism": r"does not take kafka\.sasl\.mechanism PLAIN: .*offers \(SCRAM-SHA-512\)",
    "no token": r"no token .*kafka\.sasl\.oauthbearer\.method",
    "other authority": r"not trusted \(self-signed certificate\): check kafka\.ssl\.ca\.location",
    "no authority": r"not trusted \(self-signed certificate\): check kafka\.ssl\.ca\.location",
    "expired": r"not trusted \(certificate has expired\)",
    "other host": r"for another name than localhost .*kafka\.bootstrap\.servers",
    "plaintext to TLS": r"speaks TLS: set kafka\.security\.protocol to SSL, or SASL_SSL",
    "login without TLS": r"speaks TLS: set kafka\.security\.protocol to SASL_SSL$",
    "TLS to plaintext": r"does not speak TLS: set kafka\.security\.protocol to PLAINTEXT",
    "login where none is taken": r"takes no login .*set kafka\.security\.protocol",
    "TLS without a login": r"TLS was agreed on.*kafka\.security\.protocol to SASL_SSL",
    "nobody there": r"no Kafka answered .*refused.*check kafka\.bootstrap\.servers",
}


def wrong(cluster: Secured, folder: Path) -> dict[str, dict[str, str]]:
    """Section [kafka] by what is wrong in it."""
    good = cluster.client("somebody")
    plain = {"bootstrap.servers": cluster.plain}
    other = str(certificate(folder, "other"))
    return {
        "wrong password": good | {"sasl.password": "another"},
        "unknown user": good | {"sasl.username": "nobody"},
        "wrong mechanism": good | {"sasl.mechanism": "PLAIN"},
        "no token": good | {"sasl.mechanism": "OAUTHBEARER"},
        "other authority": good | {"ssl.ca.location": other},
        "no authority": {key: good[key] for key in good if key != "ssl.ca.location"},
        "expired": {
            "bootstrap.servers": cluster.stale,
            "security.protocol": "SSL",
            "ssl.ca.location": str(cluster.authority.with_name("expired.pem")),
        },
        "other host": good
        | {"bootstrap.servers": cluster.secure.replace("127.0.0.1", "localhost")},
        "plaintext to TLS": {"bootstrap.servers": cluster.secure},
        "login without TLS": good | {"security.protocol": "SASL_PLAINTEXT"},
        "TLS to plaintext": good | plain,
        "login where none is taken": good | plain | {"security.protocol": "SASL_PLAINTEXT"},
        "TLS without a login": good | {"security.protocol": "SSL"},
        "nobody there": {"bootstrap.servers": "127.0.0.1:1"},
    }


def test_what_is_wrong_with_tls_or_the_login_is_told(cluster: Secured, tmp_path: Path) -> None:
    cluster.let_in({"somebody": []})

    def told(kafka: dict[str, str]) -> str:
        with pytest.raises(WalkstreamError) as refused:
            clients.admin(Config(kafka=dict(kafka)))
        return str(refused.value)

    cases = wrong(cluster, tmp_path)
    with ThreadPoolExecutor(len(cases)) as pool:  # each waits for seconds
        texts = dict(zip(cases, pool.map(told, cases.values()), strict=True))
    unlike = {name: texts[name] for name in cases if not re.search(REFUSALS[name], texts[name])}
    assert unlike == {}
    assert not [text for text in texts.values() if PASSWORD in text]
    clients.admin(Config(kafka=dict(cluster.client("somebody"))))
