"""RocksDB under the state folder: its families, and how they are opened."""

import logging
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict

from streamer.errors import ConfigError

log = logging.getLogger(__name__)

FIRST_FAMILIES = ("rows", "clusters", "postings", "attributes", "graph", "sessions", "meta")
"""Those that the folders of all versions have."""
FAMILIES = (*FIRST_FAMILIES, "users")

FILES = re.compile(
    r"CURRENT|IDENTITY|LOCK|LOG(\.old\.\d+)?|(MANIFEST|OPTIONS)-\d+(\.dbtmp)?"
    r"|\d+\.(sst|log|blob|dbtmp)|rocksdict-config\.json"
)
"""Names of what RocksDB and rocksdict write."""

LOG_BYTES = 64 << 20
"""Bytes of the log of writes after which RocksDB flushes what is in memory: buffers that are used
again soon are still in the processor's cache, and a restart has little to read."""
CACHE = 64 << 20
"""Bytes of blocks in memory, at most, where files are not mapped: few, as a worker hardly reads."""
FILTER_BITS = 10
"""Bits of a Bloom filter for each key: then one file in a hundred is searched for nothing."""


def family_options(family: str, cache: Cache, writes: bool) -> Options:
    """How a family is opened; by the process that writes, it is made where it is not there."""
    out = Options(raw_mode=True)
    out.create_if_missing(writes)
    out.create_missing_column_families(writes)
    # A search reads all over: from mapped files that takes a quarter less time.
    out.set_allow_mmap_reads(not writes)
    out.set_max_open_files(-1)
    out.set_keep_log_file_num(2)
    out.set_max_total_wal_size(LOG_BYTES)
    # Nearly all is numbers that learning changed, which do not shrink.
    out.set_compression_type(DBCompressionType.none())
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    if family == "rows":
        # Rows change often: most files that could hold one do not.
        table.set_bloom_filter(FILTER_BITS, False)
    out.set_block_based_table_factory(table)
    return out


def families_of(path: Path) -> list[str]:
    """Those of FAMILIES that a folder is to have, whatever version has written it."""
    there = {*FIRST_FAMILIES, *Rdict.list_cf(str(path))}
    return [name for name in FAMILIES if name in there]


def scan(family: Any, prefix: bytes, after: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of an open family whose key starts so, from key `after` on. Raises where RocksDB
    cannot read on.

    (`items()` of rocksdict takes an unreadable block for the end.)
    """
    cursor = family.iter()
    cursor.seek(after or prefix)
    while cursor.valid() and (key := cursor.key()).startswith(prefix):
        yield key, cursor.value()
        cursor.next()
    cursor.status()


def bytes_used(families: Mapping[str, Any]) -> dict[str, int]:
    """What open column families hold: in files, and in memory for writes and for reads."""

    def total(name: str) -> int:
        return sum(cf.property_int_value(f"rocksdb.{name}") or 0 for cf in families.values())

    # The block cache is shared by all families.
    cache = families["meta"].property_int_value("rocksdb.block-cache-usage") or 0
    return {
        "files": total("total-sst-files-size"),
        "memtables": total("cur-size-all-mem-tables"),
        "cache": cache,
    }


def prepare_folder(path: Path) -> None:
    """Make the folder, or make it private. ConfigError if there can be none."""
    try:
        path.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = "is a file" if path.is_file() else error.strerror
        raise ConfigError(
            f"{path}: cannot be the state folder: {why}; let state.dir name another"
        ) from None
    _keep_private(path)


def _keep_private(path: Path) -> None:
    """See to it that only the user of this process reads the folder: it says who clicked on what.

    All that this process makes from now on is private. RocksDB makes files at any time, from
    threads of its own, so that there is nothing narrower to set.
    """
    os.umask(0o077)
    if not path.exists():
        return
    opened = [path, *(file for file in path.iterdir() if FILES.fullmatch(file.name))]
    for one in opened:
        mode = stat.S_IMODE(one.stat().st_mode)
        if not mode & 0o077:
            continue
        try:
            one.chmod(mode & 0o700)
        except PermissionError:
            log.warning(
                "%s: other users may read it (mode %03o), and it belongs to one of them: make it "
                "private to the user that runs this (chown, then chmod go-rwx)", one, mode,
            )  # fmt: skip
            continue
        if one == path:
            log.info("%s: was open to other users (mode %03o), and is so no more", path, mode)


class Ahead(Exception):
    """The folder holds more of a topic than the topic has."""


def each(call: Callable[..., object], *arguments: Iterable[object]) -> None:
    """Call once for each set of arguments, without a step of Python between."""
    deque(map(call, *arguments), maxlen=0)
