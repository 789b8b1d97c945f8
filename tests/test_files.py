"""Files are written whole or not at all, and read with limits."""

from __future__ import annotations

import errno
import gzip
import os
from pathlib import Path

import pytest

import kpose.files
from kpose.errors import KposeError
from kpose.files import (
    address,
    file_size,
    files_within,
    find_files,
    is_folder,
    is_remote,
    list_folder,
    local_copy,
    new_folder,
    read_bytes,
    read_json,
    read_number_table,
    replacing,
    sha256_of,
    write_json,
)


@pytest.fixture
def former(tmp_path: Path) -> Path:
    path = tmp_path / "score.json"
    path.write_text("former")
    return path


def test_a_file_takes_its_name_when_it_is_whole(former: Path) -> None:
    with replacing(former) as partial:
        partial.write_text("new")
        assert former.read_text() == "former"
        assert partial.suffix == former.suffix
    assert former.read_text() == "new"
    assert list(former.parent.iterdir()) == [former]


def test_missing_folders_are_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "a" / "b" / "new.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "a" / "b" / "new.txt").read_text() == "new"


def replace(path: Path, failure: BaseException | None = None) -> None:
    with replacing(path) as partial:
        partial.write_text("new")
        if failure:
            raise failure


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("of the caller")])
def test_an_interrupt_or_an_error_of_the_caller_passes_and_the_former_file_stays(former: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)) as passed:
        replace(former, failure)
    assert passed.value is failure
    assert former.read_text() == "former"
    assert list(former.parent.iterdir()) == [former]


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_is_one_line_and_the_former_file_stays(former: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_: object) -> None:
        raise full

    if step != "write":
        monkeypatch.setattr(kpose.files.os, step, fail)
    with pytest.raises(KposeError, match=r"cannot write .*score\.json: No space left on device; .*the former file is untouched$"):
        replace(former, full if step == "write" else None)
    assert former.read_text() == "former"
    assert list(former.parent.iterdir()) == [former]


def test_a_folder_that_is_a_file_is_named(former: Path) -> None:
    with pytest.raises(KposeError, match=r"cannot write .*new\.json: .*; is there room, and may you write there\?$"):
        write_json({}, former / "new.json")


def test_json_comes_back_plain_and_compressed(tmp_path: Path) -> None:
    value = {"joints": ["nose", "Knöchel"], "score": 0.5}
    path = write_json(value, tmp_path / "value.json")
    assert read_json(path) == value
    (tmp_path / "value.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_json(tmp_path / "value.json.gz") == value


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "is not valid JSON"),
        ("a.json", b"[" * 100_000, "is not valid JSON"),
        ("a.json", b"\xff\xfe\xff", "is not valid JSON"),
        ("a.json.gz", b"no gzip", "cannot read"),
        ("a.json.gz", gzip.compress(b"[1, 2, 3]", mtime=0)[:-9], "cannot read"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KposeError, match=message) as refusal:
        read_json(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_a_compressed_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kpose.files, "LARGEST_JSON_BYTES", 1 << 20)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(b" " * (2 << 20)))
    with pytest.raises(KposeError, match=r"bomb\.json\.gz holds more than"):
        read_json(tmp_path / "bomb.json.gz")


def test_a_table_leaves_out_empty_fields(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss,AP\n1,0.5,\n2,0.25,0.125\n")
    assert read_number_table(tmp_path / "log.csv") == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "AP": 0.125}]


@pytest.mark.parametrize("content", ["epoch\nfirst\n", "epoch\n1,2,3\n"])
def test_what_is_no_table_of_numbers_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "log.csv").write_text(content)
    with pytest.raises(KposeError, match=r"log\.csv is not a table of numbers"):
        read_number_table(tmp_path / "log.csv")


def test_a_folder_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "models" / "7") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("whole")
        assert not (tmp_path / "models" / "7").exists()
        # Whoever looks for numbers must not find it.
        assert partial.parent == tmp_path / "models" and not partial.name.isdigit()
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["7"]
    assert (tmp_path / "models" / "7" / "deep" / "file").read_text() == "whole"


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("the caller's"), OSError(errno.ENOSPC, "No space left on device")])
def test_no_part_of_a_folder_is_left(tmp_path: Path, failure: BaseException) -> None:
    def fill() -> None:
        with new_folder(tmp_path / "7") as partial:
            (partial / "file").write_text("half")
            raise failure

    with pytest.raises(KposeError if isinstance(failure, OSError) else type(failure)):
        fill()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "file").write_text("former")

    def fill(name: str) -> None:
        with new_folder(tmp_path / name) as partial:
            (partial / "file").write_text("slower")
            # Somebody else's, while this one is filled.
            (tmp_path / "8").mkdir()

    for name in ("7", "8"):
        with pytest.raises(KposeError, match=f"{name} is already there"):
            fill(name)
    assert (tmp_path / "7" / "file").read_text() == "former" and not list((tmp_path / "8").iterdir())


def test_a_path_with_a_scheme_keeps_it_through_pathlib() -> None:
    assert address(Path("gs://bucket/a") / "b.json") == address("gs://bucket/a/b.json") == "gs://bucket/a/b.json"
    assert address(Path("file:///data/a.json")) == "/data/a.json"
    assert address("C:/data") == "C:/data" and address("data/a:b") == "data/a:b"
    assert is_remote("s3://bucket/a") and not is_remote("file:///a") and not is_remote("a/b")


def test_a_folder_is_copied_whole_and_has_a_checksum_of_names_and_contents(tmp_path: Path) -> None:
    for folder in (tmp_path / "here", "ram://folders/here"):
        for name in ("model.pb", "variables/a.data"):
            write_json(name, f"{folder}/{name}")
    assert is_folder("ram://folders/here") and not is_folder("ram://folders/here/model.pb") and not is_folder("ram://folders/none")
    copy = local_copy("ram://folders/here", tmp_path)
    assert copy.name == "here" and sorted(files_within(copy)) == ["model.pb", "variables/a.data"]
    assert local_copy("ram://folders/here", tmp_path) != copy, "files of the same name do not take one another's place"
    assert sha256_of(copy) == sha256_of(tmp_path / "here") == sha256_of("ram://folders/here")
    (copy / "variables" / "a.data").rename(copy / "variables" / "b.data")
    assert sha256_of(copy) != sha256_of(tmp_path / "here")
    assert local_copy(tmp_path / "here", tmp_path) == tmp_path / "here"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "variables").symlink_to(copy / "variables")
    before = sha256_of(tmp_path / "linked")
    (copy / "variables" / os.fsdecode(b"\xff")).write_bytes(b"more")
    assert sha256_of(tmp_path / "linked") != before, "what is behind a link counts"
    with pytest.raises(KposeError, match="cannot look into s3://bucket/none: File system scheme 's3' not implemented"):
        list(files_within("s3://bucket/none"))
    with pytest.raises(KposeError, match="cannot read ram://folders/none"):
        local_copy("ram://folders/none", tmp_path)


@pytest.mark.parametrize("place", ["ram://store/model/..", "ram://store/model/a/../../.."])
def test_a_name_that_leads_out_of_its_folder_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorflow.io.gfile.isdir", lambda path: True)
    monkeypatch.setattr("tensorflow.io.gfile.walk", lambda root: iter([(place, [], ["evil.sh"])]))
    with pytest.raises(KposeError, match="a name that leads out of it"):
        local_copy("ram://store/model", tmp_path)
    assert not list(tmp_path.rglob("evil.sh"))


def test_files_of_another_file_system_are_written_whole_and_read(tmp_path: Path) -> None:
    path = write_json({"a": [1]}, Path("ram://files/deep/a.json"))
    assert read_json(path) == read_json("ram://files/deep/a.json") == {"a": [1]}
    assert find_files("ram://files/deep/*.json") == ["ram://files/deep/a.json"]
    assert list_folder("ram://files/deep") == ["a.json"], "no temporary file stays"
    assert read_bytes(path, most=3, start=1) == b'"a"'
    local = write_json({"a": [1]}, tmp_path / "a.json")
    assert sha256_of(path) == sha256_of(local) and file_size(path) == file_size(local)
    with pytest.raises(KeyboardInterrupt):
        replace(path, KeyboardInterrupt())
    assert read_json(path) == {"a": [1]}
    with replacing("ram://files/b.json.gz") as partial:
        partial.write_bytes(gzip.compress(b"[2]"))
    assert read_json("ram://files/b.json.gz") == [2]
    with pytest.raises(KposeError, match=r"cannot read ram://files/none.json: No such file"):
        read_json("ram://files/none.json")
    with pytest.raises(KposeError, match=r"cannot write nowhere://a/b.json: .*'nowhere' not implemented"):
        write_json({}, "nowhere://a/b.json")
