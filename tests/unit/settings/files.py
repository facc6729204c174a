"""Files of settings for tests."""

from pathlib import Path


def written(folder: Path, text: str = "") -> Path:
    file = folder / "some.toml"
    file.write_text(text)
    return file
