"""Files are wholly there or as they were before."""

import os
import stat

import pytest

from fewbits.errors import FileError
from fewbits.files import read_whole, write_whole


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


def test_what_is_no_file_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("pipe", tmp_path / "to-pipe")
    for name in ("pipe", "loop", "to-pipe"):
        with pytest.raises(FileError, match=r"was not written: it is a (pipe|link)"):
            write_whole(tmp_path / name, b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert (tmp_path / "loop").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["loop", "pipe", "to-pipe"]


def test_reading_waits_for_nobody_and_takes_no_more_than_its_limit(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "", "absent", "\0"):
        with pytest.raises(FileError, match="give a recipe"):
            read_whole(tmp_path / name, 10, "a recipe")
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(FileError, match="has 11 bytes, and a recipe may have 10 at most"):
        read_whole(tmp_path / "long", 10, "a recipe")
    assert read_whole(tmp_path / "long", 11, "a recipe") == b"x" * 11


def test_what_a_killed_process_left_is_cleared_and_what_is_being_written_is_not(tmp_path):
    (tmp_path / ".a.0123abcd.part").write_bytes(b"half")
    (tmp_path / ".a.b.0123abcd.part").write_bytes(b"of another file, a.b")
    (tmp_path / ".a.mine.part").write_bytes(b"not ours")

    def pieces():
        writing = {path.name for path in tmp_path.iterdir()}
        assert ".a.0123abcd.part" not in writing and len(writing) == 3
        write_whole(tmp_path / "a", b"another, finished first")
        assert {path.name for path in tmp_path.iterdir()} == writing | {"a"}
        yield b"new"

    write_whole(tmp_path / "a", pieces())
    assert sorted(os.listdir(tmp_path)) == [".a.b.0123abcd.part", ".a.mine.part", "a"]
    assert (tmp_path / "a").read_bytes() == b"new"
