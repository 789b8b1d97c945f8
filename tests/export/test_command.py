from __future__ import annotations

import pytest

from kpose.checkpoint import save_model
from kpose.cli import main
from kpose.config import dump_config, parse_config
from kpose.data.synthetic import write_synthetic_people
from kpose.export import read_tflite_card


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "pose.keras"
    save_model(network, path, network.card)
    return path


def test_convert_writes_a_file_and_ends_with_a_line_on_it(checkpoint, network, tmp_path, capsys):
    drawn = write_synthetic_people(tmp_path, 4, image_size=(120, 120), processes=1, progress=False)
    people = {"annotations": str(drawn.annotation_file), "images": str(drawn.image_folder)}
    config = tmp_path / "experiment.yaml"
    config.write_text(dump_config(parse_config({"model": {"input_size": [64, 48]}, "data": {"train": [people]}})))
    output = tmp_path / "pose.tflite"
    arguments = ["--precision", "int8", "--config", str(config), "--samples", "3", "--output", str(output)]
    assert main(["convert", str(checkpoint), *arguments]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"{output}: int8, 0.0") and "differs from Keras by" in last
    assert read_tflite_card(output) == network.card


def test_the_gate_lists_operations_and_names_those_that_a_gpu_leaves_to_the_cpu(checkpoint, tmp_path, capsys):
    output = tmp_path / "pose.tflite"
    assert main(["convert", str(checkpoint), "--gate", "--input", "uint8", "--output", str(output)]) == 0
    *lines, gate, summary = capsys.readouterr().out.strip().splitlines()
    assert any(line.split() == ["1", "DEPTH_TO_SPACE", "version", "1"] for line in lines)
    assert gate.startswith("GPU delegate: ") and not any(line.startswith("CPU: ") for line in lines)
    assert summary.startswith(f"{output}: fp32")
    assert main(["convert", str(checkpoint), "--gate", "--decode", "--output", str(output)]) == 1
    assert "CPU: ARG_MAX ArgMax: the delegate has no such operation" in capsys.readouterr().out.splitlines()
    assert output.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "int8 needs sample crops"),
        (["--precision", "half"], "no precision 'half'"),
        (["--config", "gone.yaml"], "gone.yaml"),
        (["--input", "int16"], "no input 'int16'"),
        (["--keep-float", "auto"], "in fp32 no operation is in integers"),
    ],
)
def test_convert_refuses_in_one_line(checkpoint, tmp_path, capsys, arguments, message):
    assert main(["convert", str(checkpoint), *arguments, "--output", str(tmp_path / "pose.tflite")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
