"""Beam's workers write the bytes that one machine writes; needs `pip install kpose[beam]`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kpose.beam import beam_pipeline, map_once
from kpose.data import read_coco
from kpose.data.beam_tfrecords import write_tfrecords_with_beam
from kpose.data.tfrecords import write_tfrecords
from kpose.errors import KposeError
from kpose.skeletons import Skeleton

pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install kpose[beam]")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*")}


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--runner=DirectRunner", "--direct_num_workers=2", "--direct_running_mode=multi_processing"), marks=pytest.mark.slow),
    ],
    ids=["one process", "two processes"],
)
def test_shards_and_manifest_are_byte_for_byte_those_of_one_machine(
    make_dataset: Callable[..., tuple[Path, Path]], cross: Skeleton, tmp_path: Path, options: tuple[str, ...]
) -> None:
    people = read_coco(*make_dataset(9), cross, for_training=True)
    Path(people.image_files[3]).write_bytes(b"no picture")
    write_tfrecords(people, tmp_path / "local", shards=3, progress=False)
    write_tfrecords_with_beam(people, tmp_path / "beam", shards=3, options=options)
    local, beam = contents(tmp_path / "local"), contents(tmp_path / "beam")
    assert local.keys() == beam.keys() and len(local) == 4
    assert local == beam


def refuse(number: int) -> None:
    raise KposeError(f"number {number} is refused")


def test_what_fails_on_a_worker_is_told_in_one_line() -> None:
    with pytest.raises(KposeError, match="the Beam pipeline failed: number 3 is refused") as error, beam_pipeline() as pipeline:
        map_once(pipeline, [3], refuse)
    assert "\n" not in str(error.value)


def test_an_option_that_beam_does_not_have_is_refused() -> None:
    with pytest.raises(KposeError, match="no option --runer"), beam_pipeline(["--runer=FlinkRunner"]):
        pass
