"""The command line: complete help, one line for bad input."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kpose.cli import main, make_parser


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """All parsers of the command line with the words that lead to them."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from parsers(child, (*words, name))


ALL = dict(parsers(make_parser()))


def is_leaf(words: tuple[str, ...]) -> bool:
    return not any(other[: len(words)] == words and len(other) > len(words) for other in ALL)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_is_complete(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([*words, "--help"])
    assert done.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for action in ALL[words]._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                assert name in shown
                assert child.description
            continue
        assert action.help, f"{action.dest} is not explained"
        assert all(option in shown for option in action.option_strings)
    if is_leaf(words) and words:
        assert f"kpose {' '.join(words)}" in shown, "the help of a verb ends with an example of it"


@pytest.mark.parametrize("words", [words for words in ALL if words and is_leaf(words)], ids=" ".join)
def test_the_example_in_the_help_is_valid(words: tuple[str, ...]) -> None:
    epilog = ALL[words].epilog
    assert epilog
    example = epilog.split("\n")[-1].split()
    assert example[0] == "kpose"
    assert make_parser().parse_args(example[1:]).run


@pytest.mark.parametrize(
    "script",
    [
        "train",
        "train_on_crops",
        "convert_tflite",
        "export",
        "evaluate",
        "predict",
        "predict_batch",
        "inspect_data",
        "audit_data",
        "prepare_data",
        "import_weights",
        "model_table",
        "release_weights",
        "benchmark",
        "quickstart",
        "run_notebooks",
    ],
)
def test_scripts_show_their_help(
    script: str, repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository / "scripts" / f"{script}.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(path), run_name="__main__")
    assert done.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "gone.yaml"], "kpose: cannot read configuration gone.yaml: No such file or directory\n"),
        (["train", "--config", "{config}", "training.epoch=3"], "unknown key 'training.epoch'; did you mean 'training.epochs'?\n"),
        (["evaluate", "--config", "{config}", "--weights", "gone.keras"], "kpose: there is no checkpoint gone.keras\n"),
        (["evaluate", "--config", "{config}", "--weights", "gone.keras", "other.keras"], "kpose: there is no checkpoint gone.keras\n"),
        (["evaluate", "--config", "{config}", "--weights", "gone.keras", "evaluation.flp=no"], "did you mean 'evaluation.flip'?"),
        (["evaluate", "--config", "{config}", "--weights", "evaluation.flip=no"], "--weights names no checkpoint"),
        (["evaluate", "--config", "{config}", "evaluation.rotations=[]", "--weights", "gone.keras"], "evaluation.rotations"),
        (["predict", "photo.jpg", "--weights", "gone.keras", "--whole-image"], "kpose: there is no checkpoint gone.keras\n"),
        (["predict", "photo.jpg", "--weights", "gone.keras", "other.keras"], "kpose: there is no checkpoint gone.keras\n"),
        (["predict", "photo.jpg", "--detector", "gone.pb"], "kpose: gone.pb is no detector that kpose knows"),
        (["predict", "photo.jpg", "--detector", "."], "kpose: there is no SavedModel in .: it has no saved_model.pb\n"),
        (["predict", "photo.jpg", "--detector", "gone.json"], "kpose: cannot read gone.json: No such file or directory\n"),
        (["predict", "photo.jpg", "--person-class", "3"], "kpose: --person-class goes with --detector\n"),
        (["predict-batch", "photos", "--output", "poses", "--person-class", "3"], "kpose: --person-class goes with --detector\n"),
        (["demo", "--person-class", "3"], "kpose: --person-class goes with --detector\n"),
        (["predict-batch", ".", "--output", "poses", "--detector", ".", "--person-class", "3"], "kpose: there is no SavedModel in ."),
        (["import-weights", "gone.pth", "--model", "hrnet_w33", "--output", "x.keras"], "'hrnet_w33'; did you mean 'hrnet_w32'?"),
        (["import-weights", "gone.pth", "--model", "lite_mobilenet_v3", "--output", "x.keras"], "kpose: there is no checkpoint gone.pth\n"),
        (["import-weights", "gone.pth", "--output", "x.keras"], "kpose: give --model NAME"),
        (["import-weights", "gone.npz", "--config", "{config}", "--output", "x.keras"], "kpose: there are no weights gone.npz\n"),
        (["train-on-crops", "--crops", "gone", "--output", "run"], "kpose: there are no crops in gone: crops.json is missing"),
        (["prepare-data", "crops", "--config", "{config}", "--output", "crops"], "no dataset given"),
        (["train", "--config", "{config}"], "no dataset"),
        (["audit"], "kpose: give either --config FILE, or --annotations FILE with --images FOLDER\n"),
        (["audit", "--config", "{config}"], "kpose: the configuration has no dataset; "),
        (["audit", "--config", "{config}", "--images", "photos"], "kpose: --images goes with --annotations; "),
        (["audit", "--annotations", "gone.json", "--images", "."], "kpose: cannot read gone.json: No such file or directory\n"),
        (["audit", "--annotations", "people.json"], "kpose: --annotations needs --images, "),
        (["train", "--config", "{config}", "--resume"], "to resume from"),
        (["export", "gone.keras", "served"], "kpose: there is no checkpoint gone.keras\n"),
        (["export", "gone.keras", "served", "--version", "0"], "kpose: version must be at least 1, found 0\n"),
        (["export", "gone.keras", "served", "--largest-megapixels", "0"], "kpose: --largest-megapixels must be above 0"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "empty.yaml"
    config.write_text("model: {input_size: [64, 64]}\n")
    status = main([argument.format(config=config) for argument in arguments])
    captured = capsys.readouterr()
    assert status == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
