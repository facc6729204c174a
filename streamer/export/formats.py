"""The files that vectors leave in. A format is one function and one line of FORMATS."""

import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from streamer.errors import ConfigError
from streamer.export.published import Published

Which = Literal["vector", "context"]


def npz(found: Published, which: Which) -> bytes:
    """numpy's own: arrays of one row an item, and the commit and space that they are of."""
    out = io.BytesIO()
    np.savez(
        out, allow_pickle=False, items=np.array(found.items, np.str_), vectors=found.vectors,
        contexts=found.contexts, norms=found.norms, clusters=found.clusters,
        updates=found.updates, versions=found.versions, commit=np.int64(found.commit),
        space=np.str_(found.space),
    )  # fmt: skip
    return out.getvalue()


def word2vec(found: Published, which: Which) -> bytes:
    """The text format of word2vec: n and d, then a line for each item.

    Its fields end at white space: what an id has of that becomes `_`. ConfigError if two ids become
    the same.
    """
    rows = found.vectors if which == "vector" else found.contexts
    names = ["_".join(item.split()) if item.split() != [item] else item for item in found.items]
    first: dict[str, str] = {}
    for name, item in zip(names, found.items, strict=True):
        if (other := first.setdefault(name, item)) != item:
            raise ConfigError(
                f"--format word2vec: items {other!r} and {item!r} would both be {name!r}, as "
                "white space ends a field of that format: take npz or parquet"
            )
    lines = [f"{len(rows)} {rows.shape[1]}"]
    for name, row in zip(names, rows.tolist(), strict=True):
        lines.append(name + " " + " ".join(f"{x:.6f}" for x in row))
    return ("\n".join(lines) + "\n").encode()


def parquet(found: Published, which: Which) -> bytes:
    """A table of one row an item; vectors are lists of floats of one length, and the commit and the
    space stand in the metadata of the file."""
    pa = arrow()
    d = found.vectors.shape[1]

    def lists(rows: Any) -> Any:
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), d)

    cluster = pa.array(found.clusters, mask=found.clusters < 0)
    columns = {
        "item_id": pa.array(found.items), "vector": lists(found.vectors),
        "context": lists(found.contexts), "vector_norm": pa.array(found.norms[:, 0]),
        "context_norm": pa.array(found.norms[:, 1]), "cluster": cluster,
        "updates": pa.array(found.updates), "version": pa.array(found.versions),
    }  # fmt: skip
    return written(pa.table(columns), found)


def arrow() -> Any:
    """pyarrow. ConfigError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            'Parquet needs pyarrow: pip install ".[parquet]", in the folder of Walkstream'
        ) from None
    return pyarrow


def written(table: Any, found: Published) -> bytes:
    """A table as the bytes of a Parquet file."""
    pa, out = arrow(), io.BytesIO()
    meta = {"walkstream.commit": str(found.commit), "walkstream.space": found.space}
    pa.parquet.write_table(table.replace_schema_metadata(meta), out)
    return out.getvalue()


FORMATS: dict[str, Callable[[Published, Which], bytes]] = {
    "npz": npz,
    "word2vec": word2vec,
    "parquet": parquet,
}
ENDINGS = {".npz": "npz", ".txt": "word2vec", ".vec": "word2vec", ".parquet": "parquet"}
"""What a name that ends so asks for."""
