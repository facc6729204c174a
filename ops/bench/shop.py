"""The clicks and the catalogue of an invented shop, as files to evaluate on.

    .venv/bin/python ops/bench/shop.py FOLDER [--clicks N] [--products N] [--held-back N]

The shop is that of `walkstream publish --synthetic`. Products that are held back arrive evenly over
the log, each as popular as the best of its category; `FOLDER/items.jsonl` has all of them.
"""

import argparse
from itertools import islice
from pathlib import Path

import msgspec

from streamer.demo.shop import Shop

START_MS = 1_700_000_000_000
RATE = 10.0
"""Clicks a second, such that nobody is back within the default `session.gap`."""
USERS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clicks", type=int, default=200_000)
    parser.add_argument("--products", type=int, default=3000)
    parser.add_argument("--held-back", type=int, default=1000)
    asked = parser.parse_args()
    sent = 0
    shop = Shop(
        1, asked.products, users=USERS, present=50, held_back=asked.held_back,
        arrive_every=max(1, asked.clicks // max(1, asked.held_back)),
    )  # fmt: skip
    asked.folder.mkdir(parents=True, exist_ok=True)
    with (asked.folder / "clicks.jsonl").open("wb") as out:
        records = shop.records(lambda: START_MS + round(1000 * sent / RATE))
        clicks = (record for record in records if record.topic == "clicks")
        for record in islice(clicks, asked.clicks):
            assert record.value is not None
            out.write(record.value + b"\n")
            sent += 1
    items = b"".join(msgspec.json.encode(item) + b"\n" for item in shop.items())
    (asked.folder / "items.jsonl").write_bytes(items)
    print(f"wrote clicks.jsonl and items.jsonl to {asked.folder}")


if __name__ == "__main__":
    main()
