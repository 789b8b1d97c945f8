"""The configurations of published rows: their heads say all that one needs, and every one of them really trains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kpose.cli import make_parser
from kpose.codecs import make_codec
from kpose.config import Config, DatasetConfig, load_config
from kpose.data import training_data
from kpose.data.layouts import LAYOUTS
from kpose.models import build_model
from kpose.models.published import ROWS, Row
from kpose.skeletons import get_skeleton
from kpose.training.fit import make_loss, make_model, make_optimizer
from kpose.yaml_files import read_yaml

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = sorted((CONFIGS / "recipes").glob("*.yaml"))
# The others are runs of kpose's own.
PUBLISHED = sorted(path for folder in ("coco", "joint", "lsp", "mpii") for path in (CONFIGS / folder).glob("*.yaml"))
GUIDE = CONFIGS.parent / "docs" / "guides" / "recipes.md"

# People that an epoch has: HRNet's count of COCO train2017, its train.json of MPII, LSP's first thousand and LSP-Extended.
PEOPLE = {"coco": "149,813", "mpii": "22,246", "lsp": "11,000", "joint": "600,000"}

# Small enough to be trained for two steps whenever the tests run: one output and several, COCO and MPII, Adam and RMSprop.
QUICK = ("coco/lite_mobilenet_v3_256x192", "coco/cpn_resnet50_ohkm_256x192", "mpii/soft_gated_hourglass_1x68")


def name_of(path: Path) -> str:
    return str(path.relative_to(CONFIGS).with_suffix(""))


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


def head_of(path: Path) -> dict[str, str]:
    """The labelled parts of the comment that a configuration begins with; its first lines are called "Paper"."""
    parts, label = {"Paper": ""}, "Paper"
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        found = re.match(r"# ([A-Z][a-z]+): +(.*)", line)
        if found:
            label = found[1]
            parts[label] = found[2]
        elif line != "#":
            parts[label] += f"{chr(10) if label == 'Command' else ' '}{line.removeprefix('#').strip()}"
    return parts


def summary(path: Path) -> str:
    """A configuration's line of the guide's table."""
    config = load_config(path)
    height, width = config.model.input_size
    options = ", ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in config.model.options.items()
    )
    sets = ", ".join(dict.fromkeys(dataset.format for dataset in config.data.train))
    name = name_of(path)
    network = f"`{config.model.name}`{' ' if options else ''}{options}"
    return f"| [{name}](../../configs/{name}.yaml) | {network} | {height}x{width} | {sets} | {head_of(path)['Published'].split(';')[0]} |"


# --- what a row says of itself -------------------------------------------------------------------------------------------------------


@each(PUBLISHED)
def test_a_head_names_paper_score_time_command_and_data(path: Path) -> None:
    head = head_of(path)
    assert {"Paper", "Published", "Time", "Command", "Data"} <= head.keys() <= {"Paper", "Published", "Time", "Command", "Data", "Note"}
    assert re.search(r"(19|20)\d\d", head["Paper"])
    assert re.match(r"\d\d\.\d+ (AP on COCO val2017|PCKh@0\.5 on (the )?MPII|PCK@0\.2 on the LSP)\b", head["Published"])
    assert head["Time"].endswith("Not run in full by kpose.")
    assert all(len(part) > 10 for part in head.values())


@each(PUBLISHED)
def test_the_commands_of_a_head_are_accepted_and_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    scripts = []
    for command in head_of(path)["Command"].split("\n"):
        python, script, *words = shlex.split(command, comments=True)
        assert python == "python" and Path(script).is_file()
        scripts.append(Path(script).stem)
        options = make_parser().parse_args([scripts[-1], *words])
        assert Path(options.config) == path.relative_to(CONFIGS.parent)
        config = load_config(options.config, options.overrides)
        if scripts[-1] == "evaluate":
            [weights] = options.weights
            assert config.output in Path(weights).parents
    assert scripts == ["train", "evaluate"]


@each(PUBLISHED)
def test_a_row_leaves_its_results_where_it_stands_itself(path: Path) -> None:
    config, name = load_config(path), name_of(path)
    assert str(config.output) == f"runs/{name}"
    assert path.stem.startswith(config.model.name)
    height, width = config.model.input_size
    assert f"{height}x{width}" in path.stem if path.parent.name in ("coco", "joint") else (height, width) == (256, 256)


@each(PUBLISHED)
def test_the_samples_of_a_head_are_those_of_its_epochs(path: Path) -> None:
    found = re.search(r"([\d.]+) million samples(?: \((\d+) epochs of (?:some )?([\d,]+) people\))?", head_of(path)["Time"])
    assert found
    millions, epochs, people = found.groups()
    if epochs:
        assert int(epochs) == load_config(path).training.epochs
        assert people == PEOPLE[path.parent.name]
        assert float(millions) == pytest.approx(int(epochs) * int(people.replace(",", "")) / 1e6, abs=0.06)


@each(PUBLISHED)
def test_the_guide_has_the_row(path: Path) -> None:
    assert summary(path) in GUIDE.read_text(encoding="utf-8").splitlines()


def test_the_guide_has_no_other_row() -> None:
    links = re.findall(r"^\| \[(\S+)\]\(\.\./\.\./configs/", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(links) == sorted(map(name_of, PUBLISHED))


@pytest.fixture(scope="module")
def networks() -> list[tuple[Any, ...]]:
    configs = [load_config(path) for path in PUBLISHED]
    return [(config.skeleton, config.model.name, config.model.input_size, config.model.options) for config in configs]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.network}-{row.input_size}-{dict(row.options)}")
def test_every_network_of_the_model_table_has_a_recipe(row: Row, networks: list[tuple[Any, ...]]) -> None:
    dataset = get_skeleton("mpii_16" if row.num_keypoints == 16 else "coco_17").name
    assert (dataset, row.network, row.input_size, dict(row.options)) in networks


# --- what it consists of -------------------------------------------------------------------------------------------------------------


@each(PUBLISHED)
def test_the_parts_of_a_row_fit_one_another(path: Path) -> None:
    config = load_config(path)
    height, width = config.model.input_size
    make_codec(config.codec, (height, width), (height // 4, width // 4))
    assert (config.loss.name == "offset") == (config.codec.name == "offset")
    optimizer = make_optimizer(config, steps_per_epoch=100)
    last = float(optimizer._learning_rate(100 * config.training.epochs - 1))
    assert 0 <= last < config.training.learning_rate


@each(PUBLISHED)
def test_datasets_lie_where_prepare_data_expects_them(path: Path) -> None:
    config = load_config(path)
    assert config.data.train and config.data.validation
    for dataset in [*config.data.train, *config.data.validation]:
        layout = LAYOUTS[dataset.format]
        root = Path("data") / dataset.format
        assert str(dataset.annotations) in [str(root / name) for split in layout.splits.values() for name in split.annotations]
        assert str(dataset.images) in [str(root / split.images) for split in layout.splits.values()]


@each(RECIPES)
def test_a_recipe_is_used_and_explains_itself(path: Path) -> None:
    assert len(head_of(path)["Paper"]) > 40
    users = [other for other in [*PUBLISHED, *RECIPES] if _base_of(other) == path]
    assert users
    assert "output" not in read_yaml(path, "configuration")


def _base_of(path: Path) -> Path | None:
    base = read_yaml(path, "configuration").get("extends")
    return (path.parent / base).resolve() if base else None


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        # Steps of 100: the rate in an epoch, by hand from the papers.
        ("coco/lite_mobilenet_v3_256x192", {0: 5e-7, 169: 5e-4, 170: 5e-5, 200: 5e-6}),  # 500 steps of warm-up
        ("coco/hrnet_w32_256x192", {0: 1e-3, 169: 1e-3, 170: 1e-4, 200: 1e-5}),
        ("coco/simple_baseline_resnet50_256x192", {89: 1e-3, 90: 1e-4, 120: 1e-5}),
        ("coco/multi_stage_hrnet_w32_1stage_256x192", {109: 1e-3, 110: 1e-4, 140: 1e-5}),
        ("coco/ram_gpr_hrnet_w32_256x192", {0: 1e-3, 8: 5e-4, 16: 1e-3, 32: 5e-4, 48: 1e-3, 80: 5e-4, 112: 1e-3, 176: 5e-4}),
        ("mpii/soft_gated_hourglass_4x144", {74: 2.5e-4, 75: 8.55e-5, 100: 2.924e-5, 150: 1e-5, 199: 1e-5}),
        ("lsp/soft_gated_hourglass_4x256", {24: 2.5e-4, 25: 8.55e-5, 50: 2.924e-5, 75: 1e-5, 99: 1e-5}),
        ("coco/cpn_resnet50_256x192", {23: 5e-4, 24: 2.5e-4, 48: 1.25e-4}),
    ],
)
def test_learning_rates_are_those_of_the_papers(name: str, rates: dict[int, float]) -> None:
    schedule = make_optimizer(load_config(CONFIGS / f"{name}.yaml"), steps_per_epoch=100)._learning_rate
    assert {epoch: float(schedule(100 * epoch)) for epoch in rates} == pytest.approx(rates, rel=2e-3)


# --- two steps of each ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CONFIGS / f"{name}.yaml" for name in QUICK], ids=name_of)
def test_a_small_network_of_each_kind_learns(path: Path, shared_data: Path) -> None:
    _train_two_steps(path, shared_data)


@pytest.mark.slow
@each(PUBLISHED)
def test_a_row_learns(path: Path, shared_data: Path) -> None:
    _train_two_steps(path, shared_data)


def _of_different_networks(paths: list[Path]) -> list[Path]:
    """The first row of each network and input size."""
    return list({(path.parent, str(load_config(path).model)): path for path in reversed(paths)}.values())[::-1]


@pytest.mark.slow
@each(_of_different_networks(PUBLISHED))
def test_a_network_has_the_size_of_its_row(path: Path) -> None:
    """At its own input size, where the two steps are taken at a small one."""
    config = load_config(path)
    model = build_model(config.model.name, get_skeleton(config.skeleton).num_joints, config.model.input_size, **config.model.options)
    make_loss(config, model)
    height, width = config.model.input_size
    assert all(output.shape[1:3] == (height // 4, width // 4) for output in model.outputs)
    keras.backend.clear_session()


def _train_two_steps(path: Path, shared_data: Path) -> None:
    """Two steps on real people with the row's own network, codec, loss, augmentation and optimizer, all from scratch and small."""
    config = load_config(
        path, ["model.input_size=[64, 64]", "model.trunk_weights=null", "model.initial_weights=null", "training.batch_size=2"]
    )
    config = config.model_copy(update={"data": config.data.model_copy(update={"train": _samples_like(config, shared_data)})})
    model = make_model(config)
    data = training_data(config, model)
    optimizer = make_optimizer(config, data.steps_per_epoch)
    # Step by step: tracing the great networks would take far longer than the two steps.
    model.compile(optimizer, make_loss(config, model), jit_compile=False, run_eagerly=True)
    before = [np.copy(weight.numpy()) for weight in model.trainable_weights]
    history = model.fit(data.dataset, steps_per_epoch=2, epochs=1, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"][0]) and history.history["loss"][0] > 0
    after = [np.copy(weight.numpy()) for weight in model.trainable_weights]
    assert all(np.isfinite(weight).all() for weight in after)
    # But for what sees no gradient yet: behind a gate that begins at 0, before a convolution that does.
    changed = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8
    keras.backend.clear_session()


def _samples_like(config: Config, folder: Path) -> list[DatasetConfig]:
    """A handful of real people in place of each training set. LSP's own pictures are not at hand: LSP-Extended's, of the same joints."""
    samples = folder / "format_samples"
    places: dict[str, dict[str, Any]] = {
        "coco": {"annotations": folder / "coco/annotations/person_keypoints_train2017.json", "images": folder / "coco/train2017"},
        "mpii": {"annotations": samples / "mpii/test_mpii.json", "images": samples / "mpii"},
        "aic": {"annotations": samples / "aic/test_aic.json", "images": samples / "aic"},
        "crowdpose": {"annotations": samples / "crowdpose/test_crowdpose.json", "images": samples / "crowdpose"},
        "lspet": {"annotations": folder / "lspet/joints.mat", "images": folder / "lspet/images", "people": (0, 8)},
    }
    places["lsp"] = places["lspet"] | {"format": "lspet"}
    return [dataset.model_copy(update=places[dataset.format]) for dataset in config.data.train]
