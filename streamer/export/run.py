"""`walkstream export`: vectors, or the neighbours of all items, into a file."""

import time
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from streamer import outputs
from streamer.errors import ConfigError
from streamer.export import neighbours as i2i
from streamer.export import published
from streamer.export.formats import ENDINGS, FORMATS, Which, arrow, written
from streamer.export.neighbours import Neighbours
from streamer.export.published import Published
from streamer.progress import Display
from streamer.settings.sections import Config
from streamer.wording import counted

Mode = Literal["similar", "next"]
LISTS = {".jsonl": "jsonl", ".parquet": "parquet"}
"""What a file of neighbours is by its name."""


def run(
    config: Config, out: Path, fmt: str | None, state: Path | None, commit: int | None,
    which: Which, neighbours: int | None, mode: Mode, force: bool,
) -> None:  # fmt: skip
    """Write the file. The vectors are those of a state folder, or without one of the topic."""
    outputs.check("--out", out, force)
    chosen = _format(out, fmt, LISTS if neighbours else ENDINGS)
    if "parquet" in chosen:
        arrow()
    if which != "vector" and chosen != "word2vec":
        raise ConfigError("--vectors chooses for word2vec; the other formats have both")
    begin = time.monotonic()
    if state is not None:
        found = published.from_folder(state, commit)
    else:
        with Display(config.topics.item_vectors, 100) as shown:
            found = published.from_topic(config, commit, lambda s: shown.show(int(100 * s)))
    if neighbours is None:
        data = FORMATS[chosen](found, which)
    else:
        data = _lists(found, neighbours, mode, chosen)
    outputs.write("--out", out, data, force)
    d = found.vectors.shape[1]
    print(
        f"{out}: {counted(len(found.items), 'item')} of {d} dimensions as of commit "
        f"{found.commit}, space {found.space}, in {time.monotonic() - begin:.1f} s"
    )
    if found.later:
        print(
            f"{counted(found.later, 'item')} left out, which were published after commit "
            f"{found.commit} only, as far as the topic has it: what they may have been before, "
            "compaction took"
        )


def _format(out: Path, fmt: str | None, endings: dict[str, str]) -> str:
    known = list(dict.fromkeys(endings.values()))
    chosen = fmt or endings.get(out.suffix.lower())
    if chosen not in known:
        what = "neighbours" if endings is LISTS else "vectors"
        if fmt is not None:
            raise ConfigError(f"--format {fmt}: is no format of {what}; take {_one_of(known)}")
        raise ConfigError(
            f"--out {out}: its ending tells no format of {what}; let the name end in "
            f"{_one_of(list(endings))}, or give --format {_one_of(known)}"
        )
    return chosen


def _one_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _lists(found: Published, k: int, mode: Mode, fmt: str) -> bytes:
    begin = time.monotonic()
    with Display("neighbours", 100) as shown:
        near = i2i.nearest(found, k, mode, lambda share: shown.show(int(100 * share)))
    spent, n = time.monotonic() - begin, len(found.items)
    how = "each compared with all" if near.is_exact else "each compared with the nearest clusters"
    print(f"{counted(n, 'item')} in {spent:.1f} s, {n / spent:,.0f} a second, {how}")
    return (_as_table if fmt == "parquet" else _as_lines)(found, near)


def _as_lines(found: Published, near: Neighbours) -> bytes:
    """A line of JSON for each item."""
    encode, names = msgspec.json.encode, found.items
    rounded = near.scores.astype(np.float64).round(6).tolist()
    return b"".join(
        encode(
            {
                "item": name,
                "neighbours": [names[at] for at in row if at >= 0],
                "scores": [s for s, at in zip(scores, row, strict=True) if at >= 0],
            }
        )
        + b"\n"
        for name, row, scores in zip(names, near.items.tolist(), rounded, strict=True)
    )


def _as_table(found: Published, near: Neighbours) -> bytes:
    """A row for each pair."""
    pa = arrow()
    at, rank = np.nonzero(near.items >= 0)
    names = np.array(found.items, np.object_)
    columns = {
        "item_id": pa.array(names[at], pa.string()),
        "rank": pa.array((rank + 1).astype(np.int32)),
        "neighbour": pa.array(names[near.items[at, rank]], pa.string()),
        "score": pa.array(near.scores[at, rank]),
    }
    return written(pa.table(columns), found)
