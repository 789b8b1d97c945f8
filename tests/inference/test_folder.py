from __future__ import annotations

import gzip
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.inference import predict_folder, read_boxes
from kpose.skeletons import COCO_17


def write_picture(path: Path, value: int = 100, size: tuple[int, int] = (60, 80)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), value, np.uint8))
    return path


def predictions(output: Path) -> dict:
    return json.loads((output / "predictions.json").read_text(encoding="utf-8"))


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in ("a.jpg", "monday/a.jpg", "monday/b.png", "tuesday/deep/A.JPG"):
        write_picture(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def test_same_named_pictures_of_different_folders_stay_apart(estimator, photos, tmp_path, capsys):
    output = tmp_path / "out"
    summary = predict_folder(estimator, photos, output=output, progress=False)
    names = ["a.jpg", "monday/a.jpg", "monday/b.png", "tuesday/deep/A.JPG"]
    assert (summary.pictures, summary.people, summary.left_out) == (4, 4, {})
    written = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert written == {*names, "predictions.json"}
    content = predictions(output)
    assert list(content["images"]) == names
    assert content["joint_names"] == list(COCO_17.joint_names)
    entry = content["images"]["monday/b.png"]
    assert (entry["height"], entry["width"]) == (60, 80)
    assert np.array(entry["people"][0]["keypoints"]).shape == (17, 3)
    assert entry["people"][0]["box"] == [0, 0, 80, 60]
    assert "4 people in 4 pictures" in capsys.readouterr().out


def test_poses_are_drawn(estimator, photos, tmp_path):
    predict_folder(estimator, photos, output=tmp_path / "out", minimum_score=-1.0, progress=False)
    drawn = cv2.imread(str(tmp_path / "out" / "monday" / "b.png"))
    assert drawn.shape == (60, 80, 3)
    assert (drawn != 100).any()


def test_boxes_go_by_path_or_by_name(estimator, photos, tmp_path):
    boxes = {"monday/a.jpg": np.array([[1, 1, 20, 20], [30, 5, 20, 30]]), "b.png": np.array([[5, 5, 40, 40]])}
    summary = predict_folder(estimator, photos, boxes, tmp_path / "out", progress=False)
    counts = {name: len(entry["people"]) for name, entry in predictions(tmp_path / "out")["images"].items()}
    assert counts == {"a.jpg": 0, "monday/a.jpg": 2, "monday/b.png": 1, "tuesday/deep/A.JPG": 0}
    assert summary.people == 3


def test_boxes_for_other_pictures_are_refused(estimator, photos, tmp_path):
    with pytest.raises(KposeError, match=r"name none of the pictures.*'other\.jpg'.*'a\.jpg'"):
        predict_folder(estimator, photos, {"other.jpg": np.array([[1, 1, 20, 20]])}, tmp_path / "out", progress=False)


def test_an_unreadable_picture_is_reported_and_the_others_go_on(estimator, photos, tmp_path, capsys):
    (photos / "monday" / "a.jpg").write_bytes(b"broken")
    summary = predict_folder(estimator, photos, output=tmp_path / "out", progress=False)
    assert summary.pictures == 3
    assert list(summary.left_out) == ["monday/a.jpg"]
    assert predictions(tmp_path / "out")["left_out"] == ["monday/a.jpg"]
    assert "left out monday/a.jpg" in capsys.readouterr().out


def test_a_picture_with_an_impossible_box_is_reported_and_the_others_go_on(estimator, photos, tmp_path):
    boxes = {"a.jpg": np.array([[1, 1, 20, 20]]), "b.png": np.array([[1, 1, 0, 20]])}
    summary = predict_folder(estimator, photos, boxes, tmp_path / "out", progress=False)
    assert (summary.pictures, summary.people) == (3, 2)
    assert "has no area" in summary.left_out["monday/b.png"]


def test_a_single_picture(estimator, photos, tmp_path):
    predict_folder(estimator, photos / "monday" / "b.png", output=tmp_path / "out", progress=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.png", "predictions.json"]


def test_many_people_fill_several_batches(estimator, photos, tmp_path):
    boxes = {name: np.array([[1 + x, 1, 20, 30] for x in range(5)]) for name in ("a.jpg", "b.png")}
    assert predict_folder(estimator, photos, boxes, tmp_path / "out", progress=False).people == 15


def test_results_of_an_earlier_run_are_no_source(estimator, photos):
    first = predict_folder(estimator, photos, output=photos / "out", progress=False)
    assert predict_folder(estimator, photos, output=photos / "out", progress=False).pictures == first.pictures == 4


def test_nothing_is_written_over_a_source(estimator, photos, tmp_path):
    with pytest.raises(KposeError, match="is the folder of the pictures"):
        predict_folder(estimator, photos, output=photos, progress=False)
    with pytest.raises(KposeError, match="would be overwritten"):
        predict_folder(estimator, photos / "a.jpg", output=photos, progress=False)
    write_picture(tmp_path / "photos" / "photos" / "a.jpg")
    with pytest.raises(KposeError, match="would be overwritten"):
        predict_folder(estimator, photos, output=tmp_path / "elsewhere" / ".." / ".." / tmp_path.name, progress=False)


def test_nothing_is_written_through_a_link_out_of_the_output_folder(estimator, photos, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "monday").symlink_to(outside, target_is_directory=True)
    with pytest.raises(KposeError, match="through a link"):
        predict_folder(estimator, photos, output=tmp_path / "out", progress=False)
    assert not list(outside.iterdir())


def test_a_link_where_a_picture_goes_is_replaced_not_followed(estimator, photos, tmp_path):
    precious = write_picture(tmp_path / "precious.jpg", 7)
    before = precious.read_bytes()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.jpg").symlink_to(precious)
    predict_folder(estimator, photos, output=tmp_path / "out", progress=False)
    assert precious.read_bytes() == before
    assert not (tmp_path / "out" / "a.jpg").is_symlink()


def test_sources_without_pictures_are_refused(estimator, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("no picture")
    write_picture(tmp_path / "bad" / "a.jpg").write_bytes(b"broken")
    for source, message in (
        ("gone", "no picture or folder"),
        ("empty", "has no picture"),
        ("text.txt", "not a picture kpose reads"),
        ("bad", "neither a JPEG nor a PNG"),
    ):
        with pytest.raises(KposeError, match=message):
            predict_folder(estimator, tmp_path / source, output=tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "predictions.json").exists()


def write_boxes(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_boxes_as_a_mapping(tmp_path):
    boxes = read_boxes(write_boxes(tmp_path / "boxes.json", {"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]], "b.jpg": []}))
    assert boxes["a.jpg"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes["b.jpg"].shape == (0, 4)


def test_boxes_as_coco_annotations_without_crowds_and_other_categories(tmp_path):
    annotations = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"image_id": 7, "category_id": 18, "bbox": [0, 0, 8, 8], "iscrowd": 0},
    ]
    content = {
        "images": [{"id": 7, "file_name": "x.jpg"}, {"id": 8, "file_name": "y.jpg"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": annotations,
    }
    boxes = read_boxes(write_boxes(tmp_path / "truth.json", content))
    assert boxes["x.jpg"].tolist() == [[1, 2, 3, 4]]
    assert boxes["y.jpg"].shape == (0, 4)


def test_boxes_as_coco_detections_above_the_minimum_score(tmp_path):
    detections = [{"image_id": 785, "category_id": 1, "bbox": [1, 2, 3, 4], "score": score} for score in (0.9, 0.5, 0.1)]
    dog = {"image_id": 785, "category_id": 18, "bbox": [1, 2, 3, 4], "score": 0.99}
    path = write_boxes(tmp_path / "detections.json", [dog, *detections])
    assert len(read_boxes(path)["000000000785.jpg"]) == 2
    assert len(read_boxes(path, minimum_score=0.0)["000000000785.jpg"]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (3, "found int"),
        ([{"image_id": 1}], "entry 0 has no 'bbox'"),
        ([{"image_id": "x", "bbox": [1, 2, 3, 4]}], "image_id 'x', which names no picture"),
        ([{"image_id": [7], "bbox": [1, 2, 3, 4]}], r"image_id '\[7\]', which names no picture"),
        ({"images": [], "categories": [{"id": [1], "name": "person"}], "annotations": [{"category_id": [1]}]}, "entry 0 has no 'bbox'"),
        ({"a.jpg": [1, 2, 3, 4]}, r"'a\.jpg': boxes have shape \(4,\)"),
        ({"a.jpg": [[1, 2, "wide", 4]]}, "four numbers"),
        ({"a.jpg": [[1, 2, 3, 4], [1]]}, "four numbers"),
        ({"images": [{"id": 1}], "annotations": []}, "no 'id' and 'file_name'"),
        ({"images": [], "annotations": [7]}, "must hold objects"),
    ],
)
def test_a_box_file_of_another_form_is_refused(tmp_path, content, message):
    with pytest.raises(KposeError, match=message):
        read_boxes(write_boxes(tmp_path / "boxes.json", content))


def test_a_missing_or_broken_box_file_is_refused(tmp_path):
    with pytest.raises(KposeError, match="cannot read"):
        read_boxes(tmp_path / "gone.json")
    (tmp_path / "boxes.json").write_text("{'a.jpg':")
    with pytest.raises(KposeError, match="not valid JSON"):
        read_boxes(tmp_path / "boxes.json")


def test_boxes_of_real_files(shared_data):
    samples = shared_data / "format_samples" / "coco"
    annotated, detected = read_boxes(samples / "test_coco.json"), read_boxes(samples / "test_coco_det_AP_H_56.json")
    assert set(detected) <= set(annotated)
    assert sum(map(len, annotated.values())) == 14
    assert 0 < sum(map(len, detected.values())) < 118
    compressed = read_boxes(shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz")
    with gzip.open(shared_data / "coco" / "annotations" / "person_keypoints_val2017_512images.json.gz") as file:
        assert len(compressed) == len(json.load(file)["images"])
