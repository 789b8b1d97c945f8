from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kpose.data.crowdpose import read_crowdpose
from kpose.errors import KposeError
from kpose.skeletons import CROWDPOSE_14


@pytest.mark.parametrize("for_training", [True, False])
def test_real_annotations_are_read(shared_data: Path, for_training: bool) -> None:
    folder = shared_data / "format_samples/crowdpose"
    people = read_crowdpose(folder / "test_crowdpose.json", folder, for_training=for_training)
    assert people.skeleton == CROWDPOSE_14
    content = json.loads((folder / "test_crowdpose.json").read_text())
    expected = [entry for entry in content["annotations"] if entry["num_keypoints"]]
    assert people.ids.tolist() == [entry["id"] for entry in expected]
    # The evaluation code of the dataset takes 0.53 of the box for the area.
    np.testing.assert_allclose(people.areas, [0.53 * entry["bbox"][2] * entry["bbox"][3] for entry in expected], rtol=1e-6)
    np.testing.assert_allclose(people.keypoints.reshape(len(people), -1), [entry["keypoints"] for entry in expected])


def test_real_detections_are_read(shared_data: Path) -> None:
    folder = shared_data / "format_samples/crowdpose"
    boxes = folder / "test_crowdpose_det_AP_40.json"
    people = read_crowdpose(folder / "test_crowdpose.json", folder, boxes, for_training=False)
    assert len(people) == len(json.loads(boxes.read_text())) == 6


def test_another_order_of_joints_is_refused(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "format_samples/crowdpose"
    content = json.loads((folder / "test_crowdpose.json").read_text())
    content["categories"][0]["keypoints"][12:] = ["neck", "head"]
    path = tmp_path / "swapped.json"
    path.write_text(json.dumps(content))
    with pytest.raises(KposeError, match="joint 12 is 'neck', the skeleton 'crowdpose_14' has 'head_top'"):
        read_crowdpose(path, folder, for_training=True)
