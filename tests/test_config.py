from __future__ import annotations

from pathlib import Path

import pytest

from kpose.config import Config, dump_config, load_config, parse_config
from kpose.errors import KposeError
from kpose.yaml_files import MAXIMUM_BYTES

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIGURATIONS = sorted(path for path in (REPOSITORY / "configs").glob("**/*.yaml") if path.parent.name != "skeletons")


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path, *overrides):
    """The one line that a configuration is refused with."""
    with pytest.raises(KposeError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_empty_file_is_the_default(write):
    assert load_config(write("")) == Config()
    assert load_config(write("# nothing but a comment\n")) == Config()


def test_the_defaults_are_the_published_recipe_of_the_lightweight_network():
    config = Config()
    assert (config.model.name, config.model.input_size) == ("lite_mobilenet_v3", (256, 192))
    assert (config.codec.name, config.codec.sigma, config.codec.alignment) == ("gaussian", 2.0, "classic")
    assert config.data.mean == (0.485, 0.456, 0.406)
    assert config.data.std == (0.229, 0.224, 0.225)
    assert config.data.box_padding == 1.25
    training = config.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (210, 64, 5e-4)
    assert (training.warmup_steps, training.warmup_factor) == (500, 0.001)
    assert (training.drop_epochs, training.drop_factor) == ([170, 200], 0.1)
    assert (config.loss.name, config.loss.weighting) == ("heatmap_weighting", "x")
    evaluation = config.evaluation
    assert (evaluation.flip, evaluation.shift_heatmap) == (True, True)
    assert (evaluation.suppression_threshold, evaluation.keypoint_threshold) == (0.9, 0.2)


def test_the_default_augmentation_is_that_of_hrnet():
    augmentation = Config().augmentation
    assert augmentation.flip_probability == 0.5
    assert (augmentation.rotation_degrees, augmentation.rotation_probability, augmentation.scale) == (45, 0.6, 0.35)
    assert (augmentation.half_body_probability, augmentation.half_body_minimum_joints, augmentation.half_body_padding) == (0.3, 8, 1.5)
    assert augmentation.cutout_probability == augmentation.brightness == augmentation.contrast == augmentation.saturation == 0


def test_one_configuration_does_not_change_another():
    changed, other = Config(), Config()
    changed.model.options["attention"] = False
    changed.training.drop_epochs.append(300)
    assert other == Config()
    assert other.model.options == {}


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(REPOSITORY / "configs")))
def test_every_shipped_configuration_loads(path):
    config = load_config(path)
    assert parse_config(config.model_dump(mode="json")) == config


def test_a_dumped_configuration_reads_back_the_same(write):
    config = parse_config(
        {
            "output": "runs/größe",
            "seed": 7,
            "model": {"options": {"text": "1e-3", "take": "20241207_101929", "switch": "no", "empty": None, "small": 1e-5}},
            "data": {
                "train": [
                    {"annotations": "people.json", "images": "photos", "exclude": {"take": ["20241207_101929", 3, "007", "1:30"]}},
                    {"format": "tfrecord", "records": "shards/*.tfrecord"},
                ],
                "validation": {"annotations": "val.json", "images": "val", "detections": "boxes.json"},
            },
            "evaluation": {"suppression_threshold": None},
        }
    )
    text = dump_config(config)
    assert load_config(write(text)) == config
    assert dump_config(load_config(write(text))) == text


# Scalars: what people type is what they get.


@pytest.mark.parametrize("text", ["5e-4", "0.0005", "5.0e-4", "5E-4"])
def test_a_number_in_scientific_notation_is_a_number(write, text):
    assert load_config(write(f"training: {{learning_rate: {text}}}")).training.learning_rate == 5e-4
    options = load_config(write(f"model: {{options: {{rate: {text}}}}}")).model.options
    assert options == {"rate": 5e-4}


@pytest.mark.parametrize("text", ["20241207_101929", "12:30:45", "2024-12-07", "010", "1_000"])
def test_a_name_that_older_yaml_takes_for_a_number_stays_a_name(write, text):
    path = write(f"data: {{train: [{{exclude: {{take: [{text}]}}}}]}}")
    assert load_config(path).data.train[0].exclude == {"take": [text]}
    assert load_config(write("data: {train: [{}]}"), [f"data.train.0.exclude.take=[{text}]"]).data.train[0].exclude == {"take": [text]}


def test_whole_numbers_stay_whole_numbers(write):
    config = load_config(write("data: {train: [{include: {image_id: [785, '785']}}]}\nseed: 0x10\nmodel: {options: {stacks: -2}}"))
    assert config.data.train[0].include == {"image_id": [785, "785"]}
    assert config.seed == 16
    assert config.model.options == {"stacks": -2}


# What is refused, and how it is told.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {epoch: 5}", "unknown key 'training.epoch'; did you mean 'training.epochs'?"),
        ("trainng: {epochs: 5}", "unknown key 'trainng'; did you mean 'training'?"),
        ("learning_rate: 1.0", "unknown key 'learning_rate'; did you mean 'training.learning_rate'?"),
        ("training: {sigma: 3}", "unknown key 'training.sigma'; did you mean 'codec.sigma'?"),
        ("codec: {xyz: 1}", "unknown key 'codec.xyz'; valid here: name, sigma, center, radius, alignment, decoding, stage_spread"),
        ("data: {validation: {image: photos}}", "unknown key 'data.validation.image'; did you mean 'data.validation.images'?"),
        ("data: {train: [{}, {anotations: a.json}]}", "unknown key 'data.train.1.anotations'; did you mean 'data.train.1.annotations'?"),
    ],
)
def test_an_unknown_key_names_the_file_and_the_nearest_valid_key(write, text, expected):
    path = write(text)
    assert refusal(path) == f"{path}: {expected}"


@pytest.mark.parametrize(
    ("text", "key", "reason"),
    [
        ("training: {epochs: ten}", "'training.epochs' is 'ten'", "valid integer"),
        ("training: {epochs: 2.5}", "'training.epochs' is 2.5", "valid integer"),
        ("training: {epochs: 0}", "'training.epochs' is 0", "greater than 0"),
        ("training: {epochs: yes}", "'training.epochs' is True", "true and false"),
        ("training: {epochs: null}", "'training.epochs' is None", "valid integer"),
        ("training: {epochs: [1]}", "'training.epochs' is [1]", "valid integer"),
        ("training: {learning_rate: .inf}", "'training.learning_rate' is inf", "finite"),
        ("training: {learning_rate: .nan}", "'training.learning_rate' is nan", ""),
        ("training: {drop_epochs: 170}", "'training.drop_epochs' is 170", "valid list"),
        ("training: {drop_epochs: [170, late]}", "'training.drop_epochs.1' is 'late'", "valid integer"),
        ("training: {drop_epochs: [170, on]}", "'training.drop_epochs' is [170, True]", "true and false"),
        ("training: {drop_factor: 1.0}", "'training.drop_factor' is 1.0", "less than 1"),
        ("evaluation: {flip: 3}", "'evaluation.flip' is 3", "boolean"),
        ("evaluation: {suppression_threshold: 1.5}", "'evaluation.suppression_threshold' is 1.5", "less than or equal to 1"),
        ("model: {input_size: [256]}", "'model.input_size.1' is missing", ""),
        ("model: {input_size: [256, 192, 3]}", "'model.input_size' is [256, 192, 3]", "at most 2"),
        ("model: {input_size: 256x192}", "'model.input_size' is '256x192'", "tuple"),
        ("model: {input_size: [256, -1]}", "'model.input_size.1' is -1", "greater than 0"),
        ("model: {options: [1]}", "'model.options' is [1]", "dictionary"),
        ("data: {std: [0.2, 0, 0.2]}", "'data.std.1' is 0", "greater than 0"),
        ("data: {train: people.json}", "'data.train' is 'people.json'", "valid list"),
        ("data: {train: [people.json]}", "'data.train.0' is 'people.json'", "a section with format, annotations"),
        ("data: {train: [{format: voc}]}", "'data.train.0.format' is 'voc'", "'crowdpose' or 'tfrecord'"),
        ("data: {train: [{exclude: {take: [1.5]}}]}", "'data.train.0.exclude.take.0' is 1.5", "valid string"),
        ("augmentation:", "'augmentation' is None", "a section with flip_probability"),
        ("augmentation: {flip_probability: 1.01}", "'augmentation.flip_probability' is 1.01", "less than or equal to 1"),
        ("augmentation: {scale: 1}", "'augmentation.scale' is 1", "less than 1"),
        ("skeleton: 17", "'skeleton' is 17", "valid string"),
        ("seed: -1", "'seed' is -1", "greater than or equal to 0"),
        ("seed: 2147483648", "'seed' is 2147483648", "less than 2147483648"),
        ("codec: {alignment: exact}", "'codec.alignment' is 'exact'", "'classic' or 'unbiased'"),
        ("loss: {weighting: x^3}", "'loss.weighting' is 'x^3'", "'none', 'x', '2x', 'x^2' or 'e^x'"),
    ],
)
def test_a_wrong_value_names_the_file_the_key_and_what_is_valid(write, text, key, reason):
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}: {key}")
    assert reason in message


def test_further_problems_are_counted(write):
    assert refusal(write("training: {epochs: 0, batch_size: 0}\nseed: -1")).endswith("(and 2 more)")


def test_an_enormous_value_is_told_briefly(write):
    nines = "&a [9,9,9,9,9,9,9,9,9]"
    bomb = "\n".join([f"- {nines}", *(f"- &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))])
    assert len(refusal(write("training:\n  epochs:\n" + "\n".join(f"    {line}" for line in bomb.splitlines())))) < 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: [", "is not valid YAML: line 2: "),
        ("training:\n\tepochs: 5", "is not valid YAML: line 2: found character '\\t' that cannot start any token"),
        ("training: {epochs: 5}\nseed: 1\ntraining: {batch_size: 8}", "is not valid YAML: line 3: the key 'training' stands there twice"),
        ("training: *absent", "is not valid YAML: line 1: found undefined alias 'absent'"),
        ("seed: !!python/object/apply:os.system ['true']", "is not valid YAML: line 1: could not determine a constructor for the tag"),
        ("seed: !!python/name:os.system", "is not valid YAML: line 1: could not determine a constructor for the tag"),
        ("seed: !!int twelve", "is not valid YAML"),
        (f"seed: {'9' * 5000}", "is not valid YAML"),
        ("seed: " + "[" * 5000, "is not valid YAML: it is nested too deeply"),
        ("seed: \x00", "is not valid YAML"),
        ("- training", "expected a mapping of settings, found list"),
        ("coco", "expected a mapping of settings, found str"),
    ],
)
def test_what_is_no_configuration_is_refused(write, text, expected):
    path = write(text + "\n")
    message = refusal(path)
    assert message.startswith(str(path))
    assert expected in message


def test_merged_settings_may_be_replaced(write):
    config = load_config(
        write("data:\n  train:\n  - &photos {annotations: a.json, images: photos}\n  - {<<: *photos, annotations: b.json}\n")
    )
    assert [(str(part.annotations), str(part.images)) for part in config.data.train] == [("a.json", "photos"), ("b.json", "photos")]


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "absent.yaml"
    assert refusal(path) == f"cannot read configuration {path}: No such file or directory"
    assert refusal(tmp_path) == f"cannot read configuration {tmp_path}: Is a directory"


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "photo.yaml"
    path.write_bytes(b"seed: 1\n\xff\xd8")
    assert refusal(path) == f"{path} is not valid YAML: byte 8 is no UTF-8 text"


def test_a_file_far_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "annotations.yaml"
    with path.open("wb") as file:
        file.truncate(MAXIMUM_BYTES + 1)
    assert f"larger than {MAXIMUM_BYTES} bytes" in refusal(path)


# Overrides from the command line.


def test_overrides_win_over_the_file_and_leave_the_rest(write):
    path = write("training: {epochs: 5, batch_size: 8}\ndata: {train: [{annotations: a.json}, {annotations: b.json}]}")
    config = load_config(
        path,
        [
            "training.epochs=10",
            "training.learning_rate=1e-3",
            "model.input_size=[128, 96]",
            "evaluation.suppression_threshold=null",
            "data.train.1.annotations=c.json",
            "data.std.0=0.5",
            "training.drop_epochs.1=190",
            "model.options.attention.kind=se",
            "output=runs/a=b",
        ],
    )
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (10, 8, 1e-3)
    assert config.model.input_size == (128, 96)
    assert config.evaluation.suppression_threshold is None
    assert [str(part.annotations) for part in config.data.train] == ["a.json", "c.json"]
    assert config.data.std == (0.5, 0.224, 0.225)
    assert config.training.drop_epochs == [170, 190]
    assert config.model.options == {"attention": {"kind": "se"}}
    assert config.output == Path("runs/a=b")
    assert Config().training.drop_epochs == [170, 200]


@pytest.mark.parametrize("text", ["training:\ndata:\n", "data: {validation: null}", ""])
def test_overrides_reach_into_sections_that_the_file_leaves_empty(write, text):
    config = load_config(write(text), ["training.epochs=3", "data.validation.images=photos"])
    assert config.training.epochs == 3
    assert config.data.validation[0].images == Path("photos")


def test_the_last_override_of_a_key_counts(write):
    path = write("")
    assert load_config(path, ["seed=1", "seed=2"]).seed == 2
    assert load_config(path, ["training={epochs: 4, batch_size: 2}", "training.epochs=5"]).training.epochs == 5
    assert refusal(path, "seed=1", "training.epochs=a", "training.epochs=b").startswith("override 'training.epochs=b': ")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.epoch=5", "unknown key 'training.epoch'; did you mean 'training.epochs'?"),
        ("trainng.epochs=5", "unknown key 'trainng'; did you mean 'training'?"),
        ("epochs=5", "unknown key 'epochs'; did you mean 'training.epochs'?"),
        ("data.train.0.anotations=x", "unknown key 'data.train.0.anotations'; did you mean 'data.train.0.annotations'?"),
        ("training.epochs=ten", "'training.epochs' is 'ten': input should be a valid integer"),
        ("training.epochs=", "'training.epochs' is None: input should be a valid integer"),
        ("training.steps_per_epoch.x=3", "'training.steps_per_epoch' is {'x': 3}: input should be a valid integer"),
        ("training=5", "'training' is 5: expected a section with epochs"),
        ("training.epochs.x=5", "'training.epochs' is 5, which has no 'x'"),
        ("training.epochs.x.y=5", "'training.epochs' is 5, which has no 'x'"),
        ("data.train.1.images=x", "'1' is not a position in 'data.train', a list of 1 (from 0)"),
        ("data.train.-1.images=x", "'-1' is not a position in 'data.train'"),
        ("data.train.first=x", "'first' is not a position in 'data.train'"),
        ("training.drop_epochs.2=x", "'2' is not a position in 'training.drop_epochs', a list of 2 (from 0)"),
        ("training.epochs", "is not of the form key=value"),
        ("=5", "is not of the form key=value"),
        ("training..epochs=5", "is not of the form key=value"),
        ("seed=[", "is not valid YAML"),
        ("seed=!!python/name:os.system", "is not valid YAML"),
    ],
)
def test_a_faulty_override_is_blamed_itself(write, override, expected):
    path = write("training: {epochs: 5}\ndata: {train: [{annotations: a.json}]}")
    message = refusal(path, "seed=3", override)
    assert f"override {override!r}" in message
    assert expected in message
    assert str(path) not in message


def test_a_fault_of_the_file_is_not_blamed_on_an_override(write):
    path = write("training: {epoch: 5}")
    assert refusal(path, "training.epochs=5", "seed=3").startswith(f"{path}: unknown key 'training.epoch'")


# Settings without an effect.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "weight_decay: 1e-4",
            "'training.weight_decay' is 0.0001: optimizer 'adam' ignores it; leave it out, or set optimizer to adamw or sgd",
        ),
        ("optimizer: rmsprop, weight_decay: 1e-4", "'training.weight_decay' is 0.0001: optimizer 'rmsprop' ignores it"),
        (
            "optimizer: adamw, momentum: 0.5",
            "'training.momentum' is 0.5: optimizer 'adamw' ignores it; leave it out, or set optimizer to sgd",
        ),
        ("first_restart: 8", "'training.first_restart' is 8: schedule 'steps' ignores it; leave it out, or set schedule to restarts"),
        ("restart_factor: 1", "'training.restart_factor' is 1: schedule 'steps' ignores it"),
        ("lowest_learning_rate: 1e-5", "'training.lowest_learning_rate' is 1e-05: schedule 'steps' ignores it"),
        ("schedule: restarts, drop_epochs: [20]", "'training.drop_epochs' is [20]: schedule 'restarts' ignores it"),
        ("schedule: restarts, drop_factor: 0.2", "'training.drop_factor' is 0.2: schedule 'restarts' ignores it"),
        (
            "schedule: restarts, learning_rate: 1e-3, lowest_learning_rate: 1e-3",
            "'training.lowest_learning_rate' is 0.001: it must be lower than the learning_rate, 0.001",
        ),
    ],
)
def test_a_setting_that_the_chosen_recipe_ignores_is_refused(write, text, expected):
    path = write(f"training: {{{text}}}")
    assert refusal(path).startswith(f"{path}: {expected}")


@pytest.mark.parametrize(
    "text",
    [
        "optimizer: adamw, weight_decay: 0.01",
        "optimizer: sgd, weight_decay: 1e-4, momentum: 0",
        "optimizer: adam, weight_decay: 0, momentum: 0.9",  # as they are by default
        "schedule: restarts, first_restart: 8, restart_factor: 1.5, lowest_learning_rate: 1e-6",
        "schedule: restarts, drop_epochs: []",
    ],
)
def test_a_setting_that_is_heeded_or_as_by_default_is_taken(write, text):
    config = load_config(write(f"training: {{{text}}}"))
    assert load_config(write(dump_config(config))) == config


def test_only_the_setting_that_is_wrong_itself_is_told(write):
    assert refusal(write("training: {optimizer: lion, momentum: 0.5}")).endswith("'sgd'")


# extends


@pytest.fixture
def write_files(tmp_path):
    """Writes files by their names; returns their folder."""

    def write(**contents):
        for name, text in contents.items():
            path = tmp_path / f"{name.replace('__', '/')}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def test_a_file_overrides_the_one_that_it_extends_key_by_key(write_files):
    folder = write_files(
        recipes__base="training: {epochs: 5, batch_size: 8}\nmodel: {options: {stages: 2, gate: scalar}}\nseed: 7\n"
        "data: {train: [{annotations: a.json}, {annotations: b.json}], validation: {annotations: v.json, images: v}}\n",
        rows__row="extends: ../recipes/base.yaml\ntraining: {batch_size: 16, drop_epochs: [3]}\nmodel: {options: {gate: channel}}\n"
        "data: {train: [{annotations: c.json}], validation: {detections: boxes.json}}\n",
    )
    config = load_config(folder / "rows" / "row.yaml", ["training.drop_epochs.0=4"])
    assert (config.training.epochs, config.training.batch_size, config.training.drop_epochs, config.seed) == (5, 16, [4], 7)
    assert config.model.options == {"stages": 2, "gate": "channel"}
    assert [str(part.annotations) for part in config.data.train] == ["c.json"]
    [validation] = config.data.validation
    assert (str(validation.annotations), str(validation.images), str(validation.detections)) == ("v.json", "v", "boxes.json")


def test_null_takes_a_section_of_the_base_away(write_files):
    folder = write_files(base="data: {validation: {annotations: v.json}}", row="extends: base.yaml\ndata: {validation: null}")
    assert load_config(folder / "row.yaml").data.validation == []


def test_a_chain_is_followed_from_its_far_end_and_dumped_flat(write_files):
    folder = write_files(
        a="seed: 1\ntraining: {epochs: 1}\noutput: runs/a",
        b="extends: a.yaml\nseed: 2\ntraining: {batch_size: 2}",
        c="extends: b.yaml\nseed: 3",
        empty="extends: c.yaml",
    )
    config = load_config(folder / "empty.yaml")
    assert (config.seed, config.training.epochs, config.training.batch_size, str(config.output)) == (3, 1, 2, "runs/a")
    flat = dump_config(config)
    assert "extends" not in flat
    write_files(flat=flat)
    assert load_config(folder / "flat.yaml") == config


def test_an_alias_is_not_changed_with_its_twin(write_files):
    folder = write_files(
        base="data:\n  train: [&photos {annotations: a.json}]\n  validation: *photos",
        row="extends: base.yaml\ndata: {validation: {images: v}}",
    )
    config = load_config(folder / "row.yaml")
    assert config.data.train[0].images is None
    assert str(config.data.validation[0].images) == "v"


@pytest.mark.parametrize(
    ("base", "row", "blamed", "key"),
    [
        ("training: {epoch: 5}", "training: {batch_size: 2}", "base", "unknown key 'training.epoch'"),
        ("training: {epochs: 5}", "training: {epoch: 2}", "row", "unknown key 'training.epoch'"),
        ("training: {epochs: 0}", "training: {batch_size: 2}", "base", "'training.epochs' is 0"),
        ("training: {epochs: 5}", "training: {epochs: 0}", "row", "'training.epochs' is 0"),
        ("training: {epochs: 0}", "training: 3", "row", "'training' is 3"),
        ("data: {train: [{format: voc}]}", "data: {box_padding: 1}", "base", "'data.train.0.format' is 'voc'"),
        ("training: {drop_epochs: [9]}", "training: {schedule: restarts}", "base", "'training.drop_epochs' is [9]"),
    ],
)
def test_the_file_that_a_fault_comes_from_is_named(write_files, base, row, blamed, key):
    folder = write_files(base=base, row=f"extends: base.yaml\n{row}")
    assert refusal(folder / "row.yaml").startswith(f"{folder / blamed}.yaml: {key}")


def test_an_override_is_blamed_before_the_files(write_files):
    folder = write_files(base="training: {epochs: 5}", row="extends: base.yaml\ntraining: {epochs: 6}")
    assert refusal(folder / "row.yaml", "training.epochs=0").startswith("override 'training.epochs=0': 'training.epochs' is 0")


def test_files_that_extend_one_another_are_refused(write_files):
    folder = write_files(a="extends: b.yaml", b="extends: ./c.yaml", c="extends: a.yaml", self="extends: self.yaml")
    a, b, c, own = (folder / f"{name}.yaml" for name in ("a", "b", "c", "self"))
    assert refusal(a) == f"{a} extends {b} extends {c} extends {a}: a circle; take 'extends' out of one of them"
    assert refusal(own) == f"{own} extends {own}: a circle; take 'extends' out of one of them"


def test_a_chain_that_is_too_long_is_refused(write_files):
    files = {f"file_{number}": f"extends: file_{number + 1}.yaml" for number in range(30)}
    folder = write_files(**files)
    assert refusal(folder / "file_0.yaml").endswith("and so on, more than 8 times")
    write_files(file_8="seed: 5")
    assert load_config(folder / "file_0.yaml").seed == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("extends: absent.yaml", "cannot read configuration, which {row} extends, {folder}/absent.yaml: No such file or directory"),
        ("extends: .", "cannot read configuration, which {row} extends, {folder}: Is a directory"),
        (
            "extends: [a.yaml, b.yaml]",
            "{row}: 'extends' is ['a.yaml', 'b.yaml']; expected the path of one configuration, relative to this file",
        ),
        ("extends:", "{row}: 'extends' is None; expected the path of one configuration, relative to this file"),
        ("extend: base.yaml", "{row}: unknown key 'extend'; did you mean 'extends'?"),
        ("extends: list.yaml", "{folder}/list.yaml: expected a mapping of settings, found list"),
        ("extends: loop.yaml\nmodel: &m {options: *m}", "{row}: a section contains itself"),
    ],
)
def test_a_base_that_is_none_is_refused(write_files, text, expected):
    folder = write_files(row=text, list="- seed", loop="model: &m {options: *m}")
    row = folder / "row.yaml"
    assert refusal(row) == expected.format(row=row, folder=folder)


def test_only_files_extend(write):
    with pytest.raises(KposeError, match="^configuration: 'extends' is a key of configuration files alone$"):
        parse_config({"extends": "base.yaml"})
    assert refusal(write(""), "extends=a.yaml") == "override 'extends=a.yaml': 'extends' is a key of configuration files alone"
