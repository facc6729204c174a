"""What is there is not written over, and no link is followed, unless somebody says so."""

import os
from pathlib import Path

import pytest

from streamer import outputs
from streamer.errors import ConfigError
from tests.unit.conftest import Run


def test_a_file_is_written_once_and_again_with_force(tmp_path: Path) -> None:
    out = tmp_path / "map.png"
    outputs.check("--out", out, False)
    outputs.write("--out", out, b"first", False)
    with pytest.raises(ConfigError, match=r"--out .*map\.png: is there already; --force"):
        outputs.check("--out", out, False)
    with pytest.raises(ConfigError, match=r"--out .*map\.png: is there already; --force"):
        outputs.write("--out", out, b"second", False)
    assert out.read_bytes() == b"first"
    outputs.check("--out", out, True)
    outputs.write("--out", out, b"2", True)
    assert out.read_bytes() == b"2"


@pytest.mark.parametrize("leads", ["victim", "nowhere"])
def test_a_link_is_followed_with_force_only(tmp_path: Path, leads: str) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / leads)
    with pytest.raises(ConfigError, match="is a link; --force"):
        outputs.check("--out", link, False)
    with pytest.raises(ConfigError, match="is there already"):
        outputs.write("--out", link, b"new", False)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()
    outputs.write("--out", link, b"new", True)
    assert (tmp_path / leads).read_bytes() == b"new"


def test_a_folder_for_results_is_new_or_empty_and_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for name, message in (
        ("file", "is not empty"),
        ("file/below", "cannot be made: .*Not a directory"),
        (".", "is not empty"),
        ("link", "is a link; --force"),
    ):
        with pytest.raises(ConfigError, match=message):
            outputs.make_folder("--out", tmp_path / name, False)
    for name in ("there", "new/deep"):
        outputs.make_folder("--out", tmp_path / name, False)
    outputs.make_folder("--out", tmp_path / "link", True)


def test_commands_check_before_they_work(tmp_path: Path, run: Run) -> None:
    (tmp_path / "q.png").write_bytes(b"mine")
    os.symlink(tmp_path / "q.png", tmp_path / "link.png")
    (tmp_path / "c.csv").write_text("user_id,item_id,ts\nu,a,1790000000000\n")
    for name in ("q.png", "link.png"):
        for line in (
            ["plot", "--state", tmp_path / "none", "--out", tmp_path / name],
            ["evaluate", tmp_path / "c.csv", "--plot", tmp_path / name],
        ):
            code, out, err = run(*line)
            assert (code, out) == (2, "")
            assert "--force writes over it" in err
    assert (tmp_path / "q.png").read_bytes() == b"mine"
