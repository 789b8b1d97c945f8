from __future__ import annotations

import hashlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from kpose.checkpoint import save_model
from kpose.errors import KposeError
from kpose.export import TFLiteDecodingNetwork, TFLiteNetwork, convert_tflite, delegate_findings, read_tflite_record
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.metadata import attach_card
from kpose.export.quantisation import activation_ends, activation_ranges, narrowed
from kpose.export.samples import drawn_crops
from kpose.export.tflite import _built_in_operations
from kpose.models import build_model
from kpose.models.layers import BatchNormalization
from tests.export.conftest import SIZE, card_of, give_weights, keras_heatmaps, tiny_network

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def operations(path) -> list[str]:
    """The names of a file's operations, in order; TFLite's own ones."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    assert all(code.customCode is None for code in model.operatorCodes)
    codes = [NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    return [codes[operation.opcodeIndex] for operation in model.subgraphs[0].operators]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 0.08)])
def test_a_file_says_what_keras_says(files, network, crops, precision, tolerance):
    expected = keras_heatmaps(network, network.card, crops)
    found = TFLiteNetwork(files[precision])(crops)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < tolerance * np.ptp(expected)


def test_precisions_differ_in_size_and_types(files):
    sizes = {precision: path.stat().st_size for precision, path in files.items()}
    assert sizes["fp16"] < sizes["fp32"]  # of a network as small as this one, names are the greater part of int8
    for precision, types in {"fp32": (0, 0), "fp16": (0, 0), "int8": (9, 0)}.items():  # TensorType: FLOAT32 0, INT8 9
        graph = schema.ModelT.InitFromPackedBuf(files[precision].read_bytes()).subgraphs[0]
        assert (graph.tensors[graph.inputs[0]].type, graph.tensors[graph.outputs[0]].type) == types


def test_operations_are_those_that_phones_run_fast(files):
    """Hard swish is one operation in float and none in int8; nothing leaves the integers before the heatmaps."""
    plain = operations(files["fp32"])
    assert plain.count("HARD_SWISH") == 3 and "TRANSPOSE_CONV" not in plain
    assert plain.count("DEPTH_TO_SPACE") == 1
    quantised = operations(files["int8"])
    assert "HARD_SWISH" not in quantised and "QUANTIZE" not in quantised
    assert [place for place, name in enumerate(quantised) if name == "DEQUANTIZE"] == [len(quantised) - 1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_transposed_convolutions_have_no_activation_inside(crops, tmp_path, precision):
    """Inside, it would make them a version that the GPU delegate leaves to the CPU."""
    images = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(6, 3, strides=8, padding="same", name="conv")(images)
    for name in ("first", "second"):
        x = keras.layers.Conv2DTranspose(6, 4, 2, padding="same", use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(BatchNormalization(name=f"{name}_norm")(x))
    model = give_weights(keras.Model(images, keras.layers.Conv2D(17, 1, name="heatmaps")(x), name="dense"))
    path = tmp_path / "pose.tflite"
    result = convert_tflite(model, path, precision, crops, card=card_of())
    assert result.relative_rms < (1e-5 if precision == "fp32" else 5e-3)
    found = [kind for kind in operations(path) if kind not in ("DEQUANTIZE", "RESHAPE")]
    assert found[-5:] == ["TRANSPOSE_CONV", "RELU", "TRANSPOSE_CONV", "RELU", "CONV_2D"]
    assert delegate_findings(path) == []


def test_int8_takes_every_grey_level_as_it_is(files):
    graph = schema.ModelT.InitFromPackedBuf(files["int8"].read_bytes()).subgraphs[0]
    quantisation = graph.tensors[graph.inputs[0]].quantization
    assert quantisation.scale.tolist() == [1.0] and quantisation.zeroPoint.tolist() == [-128]


def test_weights_are_quantised_by_channel(files):
    model = schema.ModelT.InitFromPackedBuf(files["int8"].read_bytes())
    codes = [NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)] for code in model.operatorCodes]
    graph = model.subgraphs[0]
    for operation in graph.operators:
        kind = codes[operation.opcodeIndex]
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            kernel = graph.tensors[operation.inputs[1]]
            assert len(kernel.quantization.scale) == kernel.shape[0 if kind == "CONV_2D" else 3]


def test_rules_for_ranges_differ_in_what_they_leave_aside():
    ends = {"inside": np.array([[-4.0, 8.0, -1.0, 2.0], [-2.0, 4.0, -2.0, 4.0]]), "heatmaps": np.array([[0.0, 1.0] * 2, [0.0, 3.0] * 2])}
    found = {rule: activation_ranges(ends, rule) for rule in ("min-max", "percentile", "average")}
    assert [found[rule]["inside"] for rule in found] == [(-4, 8), (-2, 4), (-3, 6)]
    assert {ranges["heatmaps"] for ranges in found.values()} == {(0, 3)}
    assert {ranges["image"] for ranges in found.values()} == {(0, 255)}


def test_what_is_always_zero_gets_a_range_all_the_same(crops, tmp_path):
    """In steps of 1e-14 XNNPACK's arithmetic overflows, and the process is gone."""
    images = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(8, 3, strides=4, padding="same", name="conv")(images))
    gate = keras.layers.ReLU(name="never_open")(keras.layers.Conv2D(8, 1, name="shut")(x))
    both = keras.layers.Add(name="both")([x, keras.layers.Conv2D(8, 3, padding="same", name="behind")(gate)])
    model = give_weights(keras.Model(images, keras.layers.Conv2D(17, 1, name="heatmaps")(both), name="dead_branch"))
    kernel, bias = model.get_layer("shut").get_weights()
    model.get_layer("shut").set_weights([kernel, bias - 1e3])
    result = convert_tflite(model, tmp_path / "pose.tflite", "int8", crops, card=card_of())
    assert result.relative_rms < 0.05
    (graph,) = schema.ModelT.InitFromPackedBuf((tmp_path / "pose.tflite").read_bytes()).subgraphs
    outputs = {int(index) for operation in graph.operators for index in operation.outputs}
    computed = [graph.tensors[index] for index in outputs if graph.tensors[index].type == schema.TensorType.INT8]
    assert min(float(tensor.quantization.scale[0]) for tensor in computed) == pytest.approx(1e-3 / 255)


def test_a_dead_channel_keeps_its_bias_in_int8(crops, tmp_path):
    """Counted in steps as small as its weights, the bias would not fit into 32 bits."""
    images = keras.Input((*SIZE, 3), name="image")
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(8, 3, strides=4, padding="same", name="conv")(images))
    model = give_weights(keras.Model(images, keras.layers.Conv2D(17, 1, name="heatmaps")(x), name="dead"))
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 2], bias[2] = 1e-12, 1.5
    model.get_layer("conv").set_weights([kernel, bias])
    convert_tflite(model, tmp_path / "dead.tflite", "int8", crops, card=card_of())
    expected = keras_heatmaps(model, card_of(), crops)
    assert np.abs(TFLiteNetwork(tmp_path / "dead.tflite")(crops) - expected).max() < 0.05 * np.ptp(expected)


def test_hard_swish_gets_no_range_for_what_it_makes_nothing_of(network, crops):
    plain = inference_network(network, network.card)
    equalised = inference_network(network, network.card, equalising_scales(plain, crops))
    content = attach_card(_built_in_operations(equalised, half_precision=False), network.card, "")
    ranges = activation_ranges(activation_ends(content, crops[:4]), "percentile")
    less = narrowed(content, ranges)
    changed = [name for name in ranges if less[name] != ranges[name]]
    assert 0 < len(changed) <= 3
    for name in changed:
        assert ranges[name][0] < less[name][0] <= -3 + 1e-5
        assert less[name][1] == ranges[name][1]


def test_a_conversion_tells_what_it_cost(network, crops, tmp_path):
    result = convert_tflite(network, tmp_path / "pose.tflite", "fp16", crops)
    expected = keras_heatmaps(network, network.card, crops)
    error = np.abs(TFLiteNetwork(result.path)(crops) - expected)
    assert result.size == result.path.stat().st_size
    assert result.largest_difference == pytest.approx(error.max(), rel=1e-3)
    assert result.heatmap_range == pytest.approx(np.ptp(expected), rel=1e-4)
    assert str(result.path) in result.summary and "fp16" in result.summary and "\n" not in result.summary


@pytest.mark.parametrize(
    ("precision", "inputs", "kind", "first"),
    [
        ("fp32", "uint8", 3, "DEQUANTIZE"),
        ("fp16", "float", 0, None),
        ("int8", "uint8", 3, "QUANTIZE"),
        ("int8", "float", 0, "QUANTIZE"),
        ("int8-float-io", None, 0, "QUANTIZE"),
    ],
)
def test_the_picture_may_be_of_another_type(files, network, crops, tmp_path, precision, inputs, kind, first):
    """Same heatmaps: every grey level goes in as it is."""
    path = tmp_path / "pose.tflite"
    convert_tflite(network, path, precision, crops, inputs=inputs)
    graph = schema.ModelT.InitFromPackedBuf(path.read_bytes()).subgraphs[0]
    assert graph.tensors[graph.inputs[0]].type == kind and graph.tensors[graph.inputs[0]].name == b"image"
    if first:
        assert operations(path)[0] == first
    expected = TFLiteNetwork(files[precision.split("-")[0]])(crops)
    np.testing.assert_allclose(TFLiteNetwork(path)(crops), expected, atol=1e-6 * np.ptp(expected))


def test_dynamic_has_small_weights_and_float_tensors(files, network, crops, tmp_path):
    path = tmp_path / "pose.tflite"
    result = convert_tflite(network, path, "dynamic", crops)
    assert result.relative_rms < 0.08
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    graph = model.subgraphs[0]
    assert {graph.tensors[index].type for operation in graph.operators for index in operation.outputs} == {0}
    assert any(tensor.type == 9 for tensor in graph.tensors)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_decodes_inside_of_the_graph(files, network, crops, tmp_path, precision):
    path = tmp_path / "pose.tflite"
    result = convert_tflite(network, path, precision, crops, decode=True)
    heatmaps = TFLiteNetwork(files[precision])(crops)
    expected = network.card.make_codec(heatmaps.shape[1:3]).decode(heatmaps)
    found = TFLiteDecodingNetwork(path)(crops)
    assert found.shape == (len(crops), 17, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert result.decoding_difference < 1e-4 and "keypoints within" in result.summary
    assert read_tflite_record(path).variant == "keypoints"
    with pytest.raises(KposeError, match="gives keypoints, heatmaps are needed; convert without --decode"):
        TFLiteNetwork(path)
    with pytest.raises(KposeError, match="gives heatmaps, keypoints are needed; convert with --decode"):
        TFLiteDecodingNetwork(files[precision])


def test_maps_and_offsets_are_not_decoded_inside(tmp_path):
    images = keras.Input((*SIZE, 3))
    model = keras.Model(images, keras.layers.Conv2D(3 * 17, 3, strides=4, padding="same")(images), name="offsets")
    with pytest.raises(KposeError, match="maps of OffsetCodec cannot be decoded inside of the graph"):
        convert_tflite(model, tmp_path / "pose.tflite", card=card_of(codec={"name": "offset"}), decode=True)
    assert not list(tmp_path.iterdir())


def test_a_file_says_how_it_was_made(files, crops):
    assert read_tflite_record(files["fp32"]).model_dump(exclude_defaults=True) == {"precision": "fp32"}
    record = read_tflite_record(files["int8"])
    assert record.precision == "int8" and record.samples.number == len(crops)
    assert record.samples.sha256 == hashlib.sha256(crops.tobytes()).hexdigest()
    assert set(record.range_errors) == {"min-max", "percentile", "average"}
    assert record.ranges == min(record.range_errors, key=record.range_errors.get)


def test_a_checkpoint_is_enough(network, tmp_path):
    save_model(network, tmp_path / "pose.keras", network.card)
    result = convert_tflite(tmp_path / "pose.keras", tmp_path / "pose.tflite")
    assert result.largest_difference < 1e-5 * result.heatmap_range


class Gamma(keras.layers.Layer):
    def call(self, inputs):
        return tf.math.igamma(tf.abs(inputs) + 1, tf.abs(inputs))


def test_an_operation_that_tflite_has_not_is_named(tmp_path):
    images = keras.Input((*SIZE, 3))
    model = keras.Model(images, keras.layers.Conv2D(17, 1)(Gamma(name="strange_layer")(images)), name="strange")
    with pytest.raises(KposeError, match=r"TFLite has no operation of its own for Igamma in \S*strange_layer\S*; replace that layer"):
        convert_tflite(model, tmp_path / "pose.tflite", card=card_of())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((0, *SIZE, 3), np.uint8), "there is no sample crop"),
        (np.zeros((2, 48, 64, 3), np.uint8), r"have shape \(2, 48, 64, 3\); expected \(N, 64, 48, 3\)"),
        (np.random.default_rng(0).normal(size=(2, *SIZE, 3)), "expected RGB in 0..255, not normalised"),
        (np.full((2, *SIZE, 3), np.nan), "expected RGB in 0..255"),
        (np.full((2, *SIZE, 3), 0.5), "expected RGB in 0..255, not normalised"),
    ],
)
def test_samples_that_are_none_are_refused(network, tmp_path, samples, message):
    with pytest.raises(KposeError, match=message):
        convert_tflite(network, tmp_path / "pose.tflite", "int8", samples)


def test_requests_that_make_no_sense_are_refused(network, tmp_path):
    with pytest.raises(KposeError, match="no precision 'int4'; there are fp32, fp16, dynamic, int8, int8-float-io"):
        convert_tflite(network, tmp_path / "pose.tflite", "int4")
    with pytest.raises(KposeError, match=r"name ends in \.tflite"):
        convert_tflite(network, tmp_path / "pose.lite")
    with pytest.raises(KposeError, match="int8 needs sample crops"):
        convert_tflite(network, tmp_path / "pose.tflite", "int8")
    with pytest.raises(KposeError, match="no input 'int16'; there are float, uint8"):
        convert_tflite(network, tmp_path / "pose.tflite", inputs="int16")
    with pytest.raises(KposeError, match="int8-float-io takes a float picture"):
        convert_tflite(network, tmp_path / "pose.tflite", "int8-float-io", inputs="uint8")
    with pytest.raises(KposeError, match="in fp16 no operation is in integers"):
        convert_tflite(network, tmp_path / "pose.tflite", "fp16", keep_float="auto")
    with pytest.raises(KposeError, match="by 'auto' alone, found 'all'"):
        convert_tflite(network, tmp_path / "pose.tflite", "int8", keep_float="all")
    with pytest.raises(KposeError, match="has no card"):
        convert_tflite(tiny_network(), tmp_path / "pose.tflite")


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    model = tiny_network()
    kernel = model.get_layer("third_conv").kernel
    kernel.assign(np.where(np.arange(kernel.shape[-1]) == 3, np.nan, np.asarray(kernel)))
    with pytest.raises(KposeError, match="weight third_conv/kernel holds NaN or infinity"):
        convert_tflite(model, tmp_path / "pose.tflite", card=card_of())
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_former_file(network, crops, files, tmp_path, monkeypatch):
    path = tmp_path / "pose.tflite"
    path.write_bytes(b"former")

    def fail(*_):
        raise KposeError("no room")

    monkeypatch.setattr("kpose.export.tflite.TFLiteNetwork", fail)
    with pytest.raises(KposeError, match="no room"):
        convert_tflite(network, path)
    assert path.read_bytes() == b"former" and list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["full", "se", "cbam", "none"])
def test_the_lightweight_network_in_int8(attention, tmp_path):
    model, card = build_model("lite_mobilenet_v3", 17, (64, 64), attention=attention, backbone="paper"), card_of((64, 64))
    give_weights(model)
    crops = drawn_crops((64, 64), 8)
    path = tmp_path / "pose.tflite"
    result = convert_tflite(model, path, "int8", crops, card=card)
    # Weights drawn by chance say nothing of a trained network's loss; they do say that all of it is there.
    assert result.relative_rms < 0.5
    quantised = operations(path)
    assert [place for place, name in enumerate(quantised) if name == "DEQUANTIZE"][-1] == len(quantised) - 1
    if attention != "cbam":
        assert "QUANTIZE" not in quantised


def test_int8_tells_how_far_each_tensor_is_off(network, crops, tmp_path):
    errors = convert_tflite(network, tmp_path / "pose.tflite", "int8", crops).layer_errors
    names = list(errors)
    # From the picture to the heatmaps, in the order of the network.
    assert len(names) > 15 and names[-1] == "heatmaps"
    places = [next(place for place, name in enumerate(names) if part in name) for part in ("normalise", "stem", "first", "second", "third")]
    assert places == sorted(places)
    assert 0.0005 < errors[names[0]] < 0.02
    assert all(0 < error < 0.5 for error in errors.values())
    assert convert_tflite(network, tmp_path / "pose.tflite", "fp16", crops).layer_errors == {}
