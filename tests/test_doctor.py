from __future__ import annotations

from pathlib import Path

import keras
import pytest
import tensorflow as tf

import kpose.doctor
from kpose.cli import main
from kpose.doctor import Finding, examine


def found(subject: str) -> Finding:
    (finding,) = [finding for finding in examine(self_test=False) if finding.subject == subject]
    return finding


def test_a_sound_installation_has_no_fault(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "0 faults"
    for subject in ("Python", "kpose", "tensorflow", "OpenCV", "Keras backend", "GPU", "TFLite", "working folder", "self-test"):
        assert any(line.startswith(("fine ", "note ")) and f" {subject}: " in line for line in lines), subject


def test_two_opencvs_are_a_fault(monkeypatch):
    known = {"opencv-python": "4.9", "opencv-python-headless": "5.0"}
    monkeypatch.setattr(kpose.doctor, "_version", lambda name: known.get(name, "1"))
    finding = found("OpenCV")
    assert finding.verdict == "fault" and "overwrite one another" in finding.detail
    assert "pip uninstall -y opencv-python opencv-python-headless" in finding.remedy


def test_what_is_missing_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(kpose.doctor, "_version", lambda name: None if name in ("h5py", "ai-edge-litert") else "1")
    monkeypatch.setattr(kpose.doctor, "_OPENCV", ())
    assert (found("h5py").verdict, found("h5py").remedy) == ("fault", "pip install h5py")
    assert found("ai-edge-litert").verdict == "note" and "kpose[lite]" in found("ai-edge-litert").remedy
    assert found("TFLite").verdict == "note"


def test_another_backend_is_a_fault(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert found("Keras backend").verdict == "fault"


@pytest.mark.parametrize(
    ("hidden", "driver", "cuda", "verdict", "detail"),
    [
        (None, False, False, "note", "no NVIDIA driver"),
        ("-1", True, True, "note", "CUDA_VISIBLE_DEVICES='-1' hides them"),
        (None, True, False, "fault", "built without CUDA"),
        ("0", True, True, "fault", "does not find the libraries of CUDA"),
    ],
)
def test_why_no_gpu_is_seen(monkeypatch, hidden, driver, cuda, verdict, detail):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setattr(kpose.doctor.shutil, "which", lambda name: "/bin/true" if driver else None)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: driver if "nvidia" in str(path) else exists(path))
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: cuda)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert found("GPU").verdict == verdict and detail in found("GPU").detail


def test_a_folder_that_cannot_be_written_to_is_a_fault(monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kpose.doctor.tempfile, "NamedTemporaryFile", refuse)
    assert found("working folder").verdict == "fault" and "Permission denied" in found("working folder").detail


def test_a_check_that_breaks_is_a_fault_and_not_the_end(monkeypatch, capsys):
    def broken():
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(kpose.doctor, "_litert", broken)
    assert main(["doctor", "--quick"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "fault  broken: RuntimeError: no such" in lines
    assert lines[-1] == "1 fault" and any("temporary folder" in line for line in lines)
