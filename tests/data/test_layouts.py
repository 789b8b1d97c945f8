from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from kpose.cli import main
from kpose.data import layouts
from kpose.data.layouts import LAYOUTS, Layout, Split, check_layout, prepare_dataset
from kpose.data.tfrecords import open_records
from kpose.errors import KposeError
from kpose.skeletons import LSP_14

SMALL = replace(
    LAYOUTS["lspet"], pictures={"images": 4}, splits={"train": Split(("joints.mat",), "images", file_people=4)}, title="Small Sports"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four people in the layout of LSP-Extended."""
    folder = tmp_path / "small"
    (folder / "images").mkdir(parents=True)
    joints = np.ones((14, 3, 4))
    joints[:, :2] = np.random.default_rng(2).uniform(5, 55, (14, 2, 4))
    scipy.io.savemat(folder / "joints.mat", {"joints": joints})
    picture = np.random.default_rng(3).integers(0, 255, (60, 60, 3)).astype(np.uint8)
    for number in range(1, 5):
        cv2.imwrite(str(folder / "images" / f"im{number:05d}.jpg"), picture)
    return folder


def troubles(layout: Layout, root: Path) -> dict[str, str]:
    return {finding.part: finding.text for finding in check_layout(layout, root, progress=False) if not finding.whole}


def test_a_whole_download_has_nothing_to_complain_of(root: Path) -> None:
    assert [str(finding) for finding in check_layout(SMALL, root, progress=False)] == [
        "  ok      images: 4 pictures",
        f"  ok      joints.mat: {(root / 'joints.mat').stat().st_size:,} bytes",
    ]


def test_missing_pictures_are_counted_and_the_first_is_named(root: Path) -> None:
    (root / "images/im00003.jpg").unlink()
    assert troubles(SMALL, root) == {
        "images": f"3 of 4 pictures, 1 missing, first im00003.jpg; they belong into {root / 'images'}, see {SMALL.home}"
    }


def test_empty_and_cut_off_pictures_are_named(root: Path) -> None:
    whole = (root / "images/im00002.jpg").read_bytes()
    (root / "images/im00001.jpg").write_bytes(b"")
    (root / "images/im00002.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "images/im00003.jpg").write_bytes(b"<html>not found</html>")
    (root / "images/im00004.jpg").write_bytes(whole + bytes(10_000))  # whole, with something appended
    assert "3 pictures are empty or cut off: im00001.jpg, im00002.jpg, im00003.jpg;" in troubles(SMALL, root)["images"]


def test_missing_folders_and_files_are_told_with_their_place(root: Path) -> None:
    for file in (root / "images").iterdir():
        file.unlink()
    (root / "images").rmdir()
    (root / "joints.mat").unlink()
    assert troubles(SMALL, root) == {
        "images": f"no such folder; its 4 pictures belong there, see {SMALL.home}",
        "joints.mat": f"no such file; it belongs into {root}, see {SMALL.home}",
    }
    with pytest.raises(KposeError, match="there is no folder .*gone; give the one that Small Sports was unpacked to"):
        check_layout(SMALL, root / "gone")


def test_an_annotation_of_fewer_people_is_told(root: Path) -> None:
    scipy.io.savemat(root / "joints.mat", {"joints": np.ones((14, 3, 3))})
    assert troubles(SMALL, root)["joints.mat"] == f"3 people of 4; see {SMALL.home}"
    (root / "joints.mat").write_bytes(b"")
    assert "is no MATLAB file" in troubles(SMALL, root)["joints.mat"]


@pytest.mark.parametrize("content", ["", '{"images": [', '{"images": []'])
def test_json_that_is_cut_off_is_told(tmp_path: Path, content: str) -> None:
    layout = replace(SMALL, pictures={}, splits={"train": Split(("a.json", "b/c.json"), "images")})
    assert "no such file (or b/c.json); it belongs into" in troubles(layout, tmp_path)["a.json"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/c.json").write_text(json.dumps({"images": []}) + "\n")
    assert troubles(layout, tmp_path) == {}
    (tmp_path / "b/c.json").write_text(content)
    expected = not content.endswith("]")
    assert ("b/c.json" in troubles(layout, tmp_path)) == expected


def test_a_split_is_written_as_shards(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_dataset(SMALL, root, tmp_path / "records", shards=2)
    assert len(open_records([str(tmp_path / "records/lspet-train-*.tfrecord")], LSP_14, verify=True)) == 4
    assert capsys.readouterr().out.splitlines()[-1].startswith("4 people in 4 images; 2 shards and lspet-train.json in")


def test_without_an_output_the_download_is_only_checked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    prepare_dataset(SMALL, root, None)
    assert capsys.readouterr().out.splitlines()[-1] == "Small Sports is complete; give --output to write it as TFRecord shards"
    assert sorted(root.rglob("*")) == before


def test_an_incomplete_download_is_written_on_demand_alone(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "images/im00003.jpg").unlink()
    for partial, output in ((False, tmp_path / "records"), (False, None), (True, None)):
        with pytest.raises(KposeError, match="Small Sports in .* is incomplete: images; fetch the rest from http.*--partial"):
            prepare_dataset(SMALL, root, output, partial=partial)
    assert not (tmp_path / "records").exists()
    prepare_dataset(SMALL, root, tmp_path / "records", partial=True)
    lines = capsys.readouterr().out.splitlines()
    assert "1 people left out: 1 of 4 images are missing" in lines[-2]
    assert lines[-1].startswith("3 people in 3 images")


def test_an_unknown_split_is_refused_before_pictures_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "check_layout", lambda *_: pytest.fail("looked at pictures"))
    with pytest.raises(KposeError, match="Leeds Sports Pose Extended has no split 'test'; it has train"):
        prepare_dataset(LAYOUTS["lspet"], tmp_path, tmp_path, "test")


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_sound(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    assert layout.format == name
    assert layout.home.startswith("http")
    for split in layout.splits.values():
        assert split.images in layout.pictures
        # Whichever of the places holds the file, it is found.
        for place in split.annotations:
            path = tmp_path / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            assert split.find(tmp_path) == path
            path.unlink()


def test_the_published_numbers_of_pictures() -> None:
    assert {name: sorted(layout.pictures.values()) for name, layout in LAYOUTS.items()} == {
        "coco": [5_000, 118_287],
        "mpii": [24_984],
        "lsp": [2_000],
        "lspet": [10_000],
        "aic": [30_000, 210_000],
        "crowdpose": [20_000],
    }


def test_the_command_line_explains_what_is_missing(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare-data", "lspet", str(shared_data / "lspet")]) == 2
    captured = capsys.readouterr()
    assert "NOT OK  images: 9,500 of 10,000 pictures, 500 missing, first im09501.jpg; they belong into" in captured.out
    assert "NOT OK  joints.mat: 9,500 people of 10,000; see http://sam.johnson.io/research/lspet.html" in captured.out
    assert captured.err.splitlines()[-1].startswith("kpose: Leeds Sports Pose Extended in ")


def test_the_command_line_writes_what_is_there(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "prepare-data",
        "coco",
        str(shared_data / "coco"),
        "--partial",
        "--split",
        "val",
        "--shards",
        "3",
        "--output",
        str(tmp_path),
    ]
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"153 people in 48 images; 3 shards and coco-val.json in {tmp_path}"


def test_the_command_line_knows_every_layout(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in list(LAYOUTS):
        monkeypatch.setitem(LAYOUTS, name, SMALL)
        assert main(["prepare-data", name, str(root)]) == 0
    assert capsys.readouterr().out.count("Small Sports is complete") == len(LAYOUTS)
