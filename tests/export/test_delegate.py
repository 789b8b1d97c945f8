from __future__ import annotations

import re

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kpose.errors import KposeError
from kpose.export import convert_tflite, delegate_findings, operation_counts
from kpose.export.metadata import pack
from kpose.models import build_model, list_models
from tests.export.conftest import card_of, give_weights


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_all_of_a_network_runs_on_the_gpu(files, precision):
    assert delegate_findings(files[precision]) == []
    counts = operation_counts(files[precision])
    assert counts["DEPTH_TO_SPACE", 1] == 1
    assert sum(number for (kind, _), number in counts.items() if kind == "CONV_2D") > 5


def changed(path, tmp_path, change):
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content)
    change(model, {name: number for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)})
    other = tmp_path / "changed.tflite"
    other.write_bytes(pack(model, content))
    return other


def _operation(model, codes, kind):
    return next(one for one in model.subgraphs[0].operators if model.operatorCodes[one.opcodeIndex].builtinCode == codes[kind])


def _code(model, codes, kind):
    return next(one for one in model.operatorCodes if one.builtinCode == codes[kind])


def _newer(model, codes):
    _code(model, codes, "CONV_2D").version = 7


def _unknown(model, codes):
    _code(model, codes, "DEPTH_TO_SPACE").builtinCode = codes["TOPK_V2"]


def _custom(model, codes):
    code = _code(model, codes, "DEPTH_TO_SPACE")
    code.builtinCode = code.deprecatedBuiltinCode = codes["CUSTOM"]
    if code.deprecatedBuiltinCode > 127:
        code.deprecatedBuiltinCode = 127
    code.customCode = "FlexGamma"


def _five_dimensions(model, codes):
    graph = model.subgraphs[0]
    graph.tensors[_operation(model, codes, "ADD").outputs[0]].shape = np.array([1, 1, 16, 12, 8], np.int32)


def _integers(model, codes):
    graph = model.subgraphs[0]
    graph.tensors[_operation(model, codes, "ADD").outputs[0]].type = schema.TensorType.INT32


def _sign(model, codes):
    _operation(model, codes, "CONV_2D").builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.SIGN_BIT


def _channels(model, codes):
    _operation(model, codes, "DEPTHWISE_CONV_2D").builtinOptions.depthMultiplier = 2


def _crossed(model, codes):
    tensors = model.subgraphs[0].tensors
    for side, index in enumerate(_operation(model, codes, "MUL").inputs):
        tensors[index].shape = np.array([1, 8 - 7 * side, 1 + 7 * side, 24], np.int32)


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        (_newer, "CONV_2D", "version 7; the delegate knows it up to 6"),
        (_unknown, "TOPK_V2", "the delegate has no such operation"),
        (_custom, "FlexGamma", "a custom operation"),
        (_five_dimensions, "ADD", "5 dimensions in .*; the delegate has 4 at most"),
        (_integers, "ADD", "is INT32; the delegate computes in FLOAT32"),
        (_sign, "CONV_2D", "a fused activation that the delegate has not"),
        (_channels, "DEPTHWISE_CONV_2D", "depth multiplier 2"),
        (_crossed, "MUL", "neither is spread over the other"),
    ],
)
def test_what_the_delegate_leaves_to_the_cpu_is_named(files, tmp_path, change, kind, reason):
    findings = delegate_findings(changed(files["fp32"], tmp_path, change))
    found = next(finding for finding in findings if finding.operation == kind)
    assert found.output
    assert re.search(reason, found.reason)


def test_decoding_is_left_to_the_cpu(network, tmp_path):
    path = tmp_path / "pose.tflite"
    convert_tflite(network, path, decode=True)
    findings = delegate_findings(path)
    assert "ARG_MAX" in {finding.operation for finding in findings}
    assert not {"CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE"} & {finding.operation for finding in findings}


def test_a_published_file_is_judged_too(shared_models):
    findings = delegate_findings(shared_models / "movenet_lightning_fp16.tflite")
    assert str(findings[0]).startswith("CAST Cast: from UINT8 to FLOAT32")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_file_is_refused(files, tmp_path, kept):
    content, path = files["int8"].read_bytes(), tmp_path / "short.tflite"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(KposeError, match="is damaged") as refusal:
        delegate_findings(path)
    assert "\n" not in str(refusal.value)


# Which of kpose's networks are not wholly on the GPU, and by what: they shuffle channels by tensors of five dimensions.
LEFT_TO_THE_CPU = {
    "lite_hrnet_18": {"RESHAPE", "TRANSPOSE", "ADD"},
    "lite_hrnet_30": {"RESHAPE", "TRANSPOSE", "ADD"},
    "simple_baseline_shufflenet_v2": {"RESHAPE", "TRANSPOSE"},
}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        pytest.param(name, precision, marks=() if (name, precision) == ("lite_mobilenet_v3", "fp32") else pytest.mark.slow)
        for name in list_models()
        for precision in ("fp32", "fp16")
    ],
)
def test_every_network_converts_and_is_judged(name, precision, tmp_path):
    path = tmp_path / "pose.tflite"
    result = convert_tflite(give_weights(build_model(name, 17, (64, 64))), path, precision, card=card_of((64, 64)))
    # Weights drawn by chance let rounding grow in the deepest ones: Lite-HRNet-18 is off by 0.013 in fp32, by 0.33 in fp16.
    if not name.startswith("lite_hrnet"):
        assert result.relative_rms < (1e-3 if precision == "fp32" else 0.05)
    assert {finding.operation for finding in delegate_findings(path)} == LEFT_TO_THE_CPU.get(name, set())
