"""State folders that are damaged, and the files of others that stay in them."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient
from rocksdict import Cache, Rdict

from streamer.admin import reset
from streamer.errors import ConfigError, CorruptState, Refused, WalkstreamError
from streamer.inspect import folder as inspection
from streamer.inspect import plot
from streamer.kafka.identity import Identity
from streamer.query import run as query
from streamer.settings import load as config
from streamer.state import folders, records
from streamer.state import store as stores
from streamer.state.folders import check_ours, delete, guarded, reading
from streamer.state.records import Layout, Marks, Progress, progress_key
from streamer.state.rocks import family_options
from streamer.state.store import Store
from streamer.worker.header import Accepted
from streamer.worker.restore import open_store
from tests.unit.state.made import SMALL, START_MS

NOWHERE = Identity("", {})


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """The database of another program."""
    path = tmp_path / "theirs"
    database = Rdict(str(path))
    database["key"] = "value"
    database.close()
    return path


# -- damage --------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change a byte in each 200: no block stays whole, however short it is."""
    data = bytearray(path.read_bytes())
    data[::200] = bytes(byte ^ 0x55 for byte in data[::200])
    path.write_bytes(data)


def flip_first_blocks(path: Path) -> None:
    """The same of the first third, so that RocksDB opens the file and cannot read on in it."""
    data = bytearray(path.read_bytes())
    end = len(data) // 3
    data[:end:200] = bytes(byte ^ 0x55 for byte in data[:end:200])
    path.write_bytes(data)


def draw(path: Path) -> None:
    with reading(path) as store:
        plot.read(store, "category", "pca", 0)


COMMANDS: list[Callable[[Path], None]] = [
    lambda path: query.run(path, ["sku-0001"], query.Options(mode="hybrid")),
    lambda path: inspection.run(path, 40, as_json=True),
    draw,
]


@pytest.mark.parametrize("damage", [cut, flip, flip_first_blocks, Path.unlink])
@pytest.mark.parametrize("names", ["*.sst", "CURRENT", "MANIFEST-*"])
def test_what_reads_a_damaged_folder_says_so_and_what_to_do(
    learned: Path, tmp_path: Path, names: str, damage: Callable[[Path], Any]
) -> None:
    """Each file of every family; an error of another class would be a traceback."""
    for name in sorted(file.name for file in learned.glob(names)):
        folder = tmp_path / name
        shutil.copytree(learned, folder)
        damage(folder / name)
        told = []
        for command in COMMANDS:
            try:
                command(folder)
            except WalkstreamError as error:
                told.append(str(error))
        whole = damage is not flip_first_blocks
        assert len(told) == len(COMMANDS) if whole else told, name
        assert all("damaged" in text and "`walkstream reset`" in text for text in told), told


def test_a_reader_sees_what_was_written_before_it_opened(made: Path) -> None:
    with Store(made) as store:
        store.set_meta({b"a": b"1"})
        with reading(made) as reader:
            store.set_meta({b"b": b"1"})
            assert reader.meta(b"a") == b"1"


def test_a_folder_that_another_has_open_stays_where_it_is(made: Path) -> None:
    with Store(made), pytest.raises(Refused, match="another process"), guarded(made):
        Store(made)
    assert (made / "CURRENT").exists()


def test_a_damaged_folder_goes_aside_without_the_files_of_others(
    made: Path, tmp_path: Path
) -> None:
    """Also where the path is a link, perhaps to another disk: the link and its end stay."""
    link = tmp_path / "link"
    link.symlink_to(made)
    (made / "notes.txt").write_text("mine")
    manifest = next(made.glob("MANIFEST-*"))
    manifest.write_bytes(b"\0" * manifest.stat().st_size)
    with pytest.raises(CorruptState, match="cannot be used"), guarded(link):
        Store(link)
    (aside,) = made.glob("corrupt-*")
    assert {file.name for file in made.iterdir()} == {"notes.txt", aside.name}
    assert (aside / manifest.name).exists()
    assert link.is_symlink()
    Store(link).close()


def test_the_database_of_another_program_is_neither_opened_nor_moved(theirs: Path) -> None:
    before = {file.name: file.read_bytes() for file in theirs.iterdir()}
    with pytest.raises(Refused, match="not Walkstream's"):
        check_ours(theirs)
    next(theirs.glob("MANIFEST-*")).write_bytes(b"nonsense")
    with pytest.raises(WalkstreamError, match="nothing in it was touched"), guarded(theirs):
        Store(theirs)
    assert {*before} <= {file.name for file in theirs.iterdir()}


def test_what_a_replay_wrote_is_no_state_folder_but_has_one(learned: Path) -> None:
    check_ours(learned)
    with pytest.raises(Refused, match=f"let state.dir be {learned}"):
        check_ours(learned.parent)


# -- what is deleted -----------------------------------------------------------------------------


def age(path: Path, origin: bytes | None = None) -> None:
    """Make a folder that a worker left a day ago."""
    with Store(path) as store:
        entries = {
            stores.IDENTITY: msgspec.msgpack.encode({}),
            progress_key("clicks", 0): msgspec.msgpack.encode(Progress(7, START_MS, 1, 1)),
            stores.APPLIED_AT: msgspec.msgpack.encode(time.time() - 86_400),
        }
        store.set_meta(entries | ({} if origin is None else {stores.ORIGIN: origin}))


@pytest.fixture
def admin() -> AdminClient:
    """A client that nobody answers; without `topics.check` nobody is asked."""
    return AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})


def test_a_folder_that_is_too_old_goes_without_the_files_of_others(
    made: Path, tmp_path: Path, admin: AdminClient
) -> None:
    age(made)
    link = tmp_path / "link"
    link.symlink_to(made)
    (made / "notes.txt").write_text("mine")
    (made / "more").mkdir()
    (made / "000099.sst").symlink_to(made / "notes.txt")
    settings = [*SMALL, "topics.check=false", f"state.dir={link}"]
    with open_store(config.load(None, settings, {}), admin, NOWHERE, Accepted()) as store:
        assert not store.progress()
    assert link.is_symlink()
    assert (made / "notes.txt").read_text() == "mine"
    assert (made / "more").is_dir()


@pytest.mark.parametrize("needs_folder", [True, False])
def test_a_folder_that_kafka_has_not_all_of_yet_never_goes_by_age(
    learned: Path, tmp_path: Path, admin: AdminClient, needs_folder: bool
) -> None:
    """No other worker went on without it, so no deletion is missing in it."""
    path = tmp_path / "state"
    shutil.copytree(learned, path)
    age(path, stores.ADOPTED)
    with Store(path) as store:
        marks = Marks(1, 0, needs_folder=needs_folder)
        store.set_meta({records.MARKS: msgspec.msgpack.encode(marks)})
        before = {family: store.everything(family) for family in stores.FAMILIES}
    assert len(before["graph"]) > 100
    settings = [*SMALL, "topics.check=false", f"state.dir={path}"]
    with open_store(config.load(None, settings, {}), admin, NOWHERE, Accepted()) as store:
        after = {family: store.everything(family) for family in stores.FAMILIES}
        if needs_folder:
            assert after == before
        else:
            assert not after["rows"]
            assert not after["graph"]
            assert not store.progress()


@pytest.fixture
def old(learned: Path, tmp_path: Path) -> Path:
    path = tmp_path / "old"
    shutil.copytree(learned, path)
    age(path)
    return path


def rows_of(path: Path, admin: AdminClient, now: Identity, accepted: Accepted) -> int:
    """How many rows a start finds in the folder."""
    settings = [*SMALL, "topics.check=false", f"state.dir={path}"]
    with open_store(config.load(None, settings, {}), admin, now, accepted) as store:
        return len(store.everything("rows"))


def test_a_folder_that_is_too_old_comes_back_until_it_was_made_anew(
    old: Path, admin: AdminClient
) -> None:
    """The start that makes it anew may be refused, or killed, before it has all of it."""
    with Store(old) as store:
        rows = len(store.everything("rows"))
    assert rows_of(old, admin, NOWHERE, Accepted()) == 0
    assert rows_of(old, admin, NOWHERE, Accepted(loss=True)) == rows
    assert rows_of(old, admin, NOWHERE, Accepted(repair=True)) == rows
    assert rows_of(old, admin, NOWHERE, Accepted()) == 0
    folders.drop_kept(old)
    assert rows_of(old, admin, NOWHERE, Accepted(repair=True)) == 0
    assert delete(old) == []


def test_no_moment_of_the_change_loses_a_file(old: Path, tmp_path: Path) -> None:
    """A process may be killed between any two moves."""
    wanted = {file.name for file in folders.files(old)}
    for change in (folders.keep, folders.put_back):
        for most in range(2 * len(wanted) + 2):
            copy = tmp_path / f"{change.__name__}-{most}"
            shutil.copytree(old, copy)
            if change is folders.put_back:
                folders.keep(copy)
                Store(copy).close()
            with killed_after(most), suppress(KilledError):
                change(copy)
            with killed_after(1000):
                folders.put_back(copy)
            assert wanted <= {file.name for file in folders.files(copy)}
            with Store(copy) as store:
                assert store.progress()


def test_half_of_what_was_kept_never_comes_back(old: Path, tmp_path: Path) -> None:
    """A process may be killed while it does away with what it no longer needs."""
    wanted = {file.name for file in folders.files(old)}
    for most in range(len(wanted) + 4):
        copy = tmp_path / f"dropped-{most}"
        shutil.copytree(old, copy)
        folders.keep(copy)
        with Store(copy) as store:
            store.set_meta({b"made": b"anew"})
        with killed_after(most), suppress(KilledError):
            folders.drop_kept(copy)
        if not folders.put_back(copy):
            with Store(copy) as store:
                assert store.meta(b"made") == b"anew"
        else:
            assert most == 0
            assert wanted <= {file.name for file in folders.files(copy)}
        assert delete(copy) == []


def test_a_reset_asks_about_the_state_that_was_to_be_made_anew(old: Path) -> None:
    with Store(old) as store:
        store.set_meta({stores.REPAIR: b"1"})
    folders.keep(old)
    Store(old).close()
    settings = [*SMALL, f"state.dir={old}"]
    with pytest.raises(ConfigError, match="cannot be rebuilt"):
        reset.run(config.load(None, settings, {}), topics=False, dry_run=False, yes=False)
    with Store(old) as store:
        assert store.everything("rows")


class KilledError(Exception):
    """In place of a kill."""


@contextmanager
def killed_after(moves: int) -> Iterator[None]:
    """Let so many files be renamed or deleted, and raise at the next one."""
    left, rename, unlink = moves, Path.rename, Path.unlink

    def counted(do: Any) -> Any:
        def done(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise KilledError
            left -= 1
            return do(*arguments)

        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", counted(rename))
        patch.setattr(Path, "unlink", counted(unlink))
        yield


def test_a_folder_never_goes_by_age_where_a_topic_was_made_anew(
    old: Path, admin: AdminClient
) -> None:
    was, now = (Identity("", {"transitions": Layout(name, 1)}) for name in ("one", "another"))
    with Store(old) as store:
        store.set_meta({stores.IDENTITY: msgspec.msgpack.encode(was.ids)})
        rows = len(store.everything("rows"))
    assert rows_of(old, admin, now, Accepted()) == rows


def test_a_folder_that_holds_nothing_else_goes_whole(made: Path) -> None:
    assert delete(made) == []
    assert not made.exists()


def test_a_folder_of_a_version_that_knew_no_users_is_read_and_then_written(
    learned: Path, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    shutil.copytree(learned, path)
    names = [name for name in stores.FAMILIES if name != "users"]
    cache = Cache(1 << 20)
    options = {name: family_options(name, cache, writes=True) for name in stores.FAMILIES}
    database = Rdict(str(path), options["meta"], options)
    database.drop_column_family("users")
    database.close()
    assert sorted(Rdict.list_cf(str(path))) == sorted([*names, "default"])
    with reading(path) as store:
        assert list(store.scan("users")) == []
        assert store.entry("users", b"u") is None
        assert len(store.everything("rows")) > 10
    with Store(path) as store:
        store.write_entries({"users": [(b"u", b"1")]})
    check_ours(path)
    with reading(path) as store:
        assert list(store.scan("users")) == [(b"u", b"1")]
