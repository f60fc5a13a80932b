"""Files are wholly there or as they were before."""

import os

import pytest

from fewbits.errors import FileError
from fewbits.files import write_whole


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a", b"new")
    assert os.listdir(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "absent" / "a", tmp_path / "file" / "a", tmp_path / ("n" * 300),
                 f"{tmp_path}/\0"):
        with pytest.raises(FileError, match="was not written"):
            write_whole(path, b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_followed_and_others_may_read(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink(tmp_path / "real" / "a", tmp_path / "link")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "real" / "a").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "real" / "a").read_bytes() == b"new"
