"""TFLite files of kpose, run on the desk as `PoseEstimator` runs Keras networks: pictures and boxes in, poses out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from kpose.checkpoint import ModelCard
from kpose.data.crops import Preparation
from kpose.errors import KposeError
from kpose.export.metadata import Variant, read_tflite_card, read_tflite_record
from kpose.inference.litert import open_interpreter
from kpose.inference.predictor import PoseEstimator
from kpose.inference.test_time import Member, preparation_from_card
from kpose.skeletons import Skeleton
from kpose.weights.pretrained import pretrained_path


class _Shape(NamedTuple):
    shape: tuple[int, ...]


class _TFLiteFile:
    """A TFLite file of kpose, opened: from crops in 0..255 to what it gives for each.

    Attributes:
        card: what it was trained to expect; the file normalises crops itself.
    """

    def __init__(self, path: str | Path, threads: int, variant: Variant, output: tuple[int | None, ...]) -> None:
        if threads < 1:
            raise KposeError(f"threads must be at least 1, found {threads}")
        self.name = str(path)
        self.card = read_tflite_card(path)
        found = read_tflite_record(path).variant
        if found != variant:
            raise KposeError(
                f"{path} gives {found}, {variant} are needed; convert {'without' if variant == 'heatmaps' else 'with'} --decode"
            )
        shape = (1, *self.card.input_size, 3)
        self._interpreter = open_interpreter(path, threads, "the network of its card", inputs=[shape], outputs=[output])
        (self._input,), (self._output,) = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        for tensor in (self._input, self._output):
            if tensor["dtype"] not in (np.float32, np.uint8, np.int8) or (tensor["dtype"] != np.float32 and not tensor["quantization"][0]):
                raise KposeError(f"{path}: {tensor['name']} is {tensor['dtype'].__name__} without a scale, kpose writes none such")

    def __call__(self, images: Any) -> np.ndarray:
        """Crops `(B, H, W, 3)` RGB in 0..255 to `(B, ...)` float32."""
        answers = np.empty((len(images), *self._output["shape"][1:]), np.float32)
        for image, answer in zip(np.asarray(images, np.float32), answers, strict=True):
            self._interpreter.set_tensor(self._input["index"], _quantise(image, self._input)[None])
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                raise KposeError(f"{self.name} is damaged, LiteRT cannot run it: {str(error).splitlines()[0][:160]}") from error
            answer[...] = _dequantise(self._interpreter.get_tensor(self._output["index"])[0], self._output)
        return answers


class TFLiteDecodingNetwork(_TFLiteFile):
    """The network in a TFLite file that decodes: from crops `(B, H, W, 3)` in 0..255 to keypoints `(B, K, 3)`.

    Keypoints are x, y in the crop frame, and a score.

    Args:
        path: a file of `kpose.export.convert_tflite` with `decode`.
        threads: of the CPU.

    Attributes:
        card: what it was trained to expect; the file normalises crops itself.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, damaged, or not one of kpose's that decode.
    """

    def __init__(self, path: str | Path, threads: int = 2) -> None:
        super().__init__(path, threads, "keypoints", (1, None, 3))


class TFLiteNetwork(_TFLiteFile):
    """The network in a TFLite file: from crops `(B, H, W, 3)` in 0..255 to heatmaps `(B, h, w, K)`.

    Args:
        path: a file of `kpose.export.convert_tflite`.
        threads: of the CPU.

    Attributes:
        card: what it was trained to expect; the file normalises crops itself.
        outputs: with the shape of the heatmaps `(1, h, w, K)`.

    Raises:
        KposeError: when LiteRT is not installed, or the file is missing, damaged, or not one of kpose's that give heatmaps.
    """

    def __init__(self, path: str | Path, threads: int = 2) -> None:
        super().__init__(path, threads, "heatmaps", (1, None, None, None))
        self.outputs = [_Shape(tuple(map(int, self._output["shape"])))]

    def preparation(self, skeleton: Skeleton) -> Preparation:
        """The crops that it is to see: those of its card, but in 0..255."""
        return in_bytes(preparation_from_card(self, self.card, skeleton))


def in_bytes(preparation: Preparation) -> Preparation:
    """The same crops, but in 0..255 instead of normalised."""
    return replace(preparation, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))


def _quantise(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _dequantise(values: np.ndarray, tensor: dict[str, Any]) -> np.ndarray:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    return (values.astype(np.float32) - zero) * scale


class TFLiteRunner(PoseEstimator):
    """`PoseEstimator` on TFLite files: the same crops, flip test, decoding and scores, by the same code.

    runner = TFLiteRunner("pose_int8.tflite")
    runner("photo.jpg", boxes=[[40, 20, 180, 400]])

    Args:
        paths: a file of `kpose.export.convert_tflite`; or several, whose answers are averaged.
        threads: of the CPU.
        **options: those of `PoseEstimator` behind the networks and cards.

    Raises:
        KposeError: see `TFLiteNetwork` and `PoseEstimator`.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path], threads: int = 2, **options: Any) -> None:
        super().__init__([TFLiteNetwork(file, threads) for file in _listed(paths)], **options)

    @classmethod
    def from_pretrained(cls, sources: str | Path | Sequence[str | Path], *, kind: Literal["fp16", "int8"] = "int8", **options: Any) -> Self:
        """A runner of TFLite files, or of networks that come with kpose.

        Args:
            sources: a file, or a name of `kpose.list_pretrained`; or several.
            kind: which file of a network that comes with kpose.
            **options: as in the class.

        Raises:
            KposeError: when there is no such file or network; or see the class.
        """
        return cls([source if Path(source).is_file() else pretrained_path(str(source), kind) for source in _listed(sources)], **options)

    @staticmethod
    def _member(model: Any, card: ModelCard, skeleton: Skeleton, batch_size: int) -> Member:
        return Member(model, model.preparation(skeleton))


def _listed(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)
