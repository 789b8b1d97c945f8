"""RAM+GPR: an HRNet that weighs the resolutions it adds up, and refines its heatmaps from the lowest resolution to the highest.

Zhang et al., "Learning Enhanced Resolution-wise Features for Human Pose Estimation", 2020. Multiply-adds by HRNet's count ("hrnet" in
`kpose.models.counting`), in units of 2^30; scores on COCO val2017.

    network             options             input      parameters   multiply-adds   published
    ram_gpr_hrnet_w32                       256x192    31.543 M     7.680           31.4 M, 7.7, AP 76.0
    ram_gpr_hrnet_w32                       384x288    31.543 M     17.278          31.4 M, 17.2, AP 77.3
    ram_gpr_hrnet_w48                       256x192    70.345 M     15.873          70.0 M, 15.8, AP 76.5
    ram_gpr_hrnet_w48                       384x288    70.345 M     35.711          70.0 M, 35.6, AP 77.7
    ram_gpr_hrnet_w32   attention=False     256x192    30.213 M     7.679           AP 75.7
    ram_gpr_hrnet_w32   refinement=False    256x192    30.651 M     7.205           AP 75.2

The authors published no code. Where their text leaves a choice, this is its most literal reading, within 0.5 % of their figures:

* Attention weighs every sum of every exchange module. Its scores come from two 1x1 convolutions with a ReLU between them (the text has the
  plural, and without the first one a tenth of the added parameters would be missing), a pair for every map of every sum. The sum in
  the denominator of equation 2 is that of the exponentials, over the maps.
* The last exchange gives all four resolutions, which refinement needs. Before the interpolation a 1x1 convolution brings the map to the
  width that the transposed convolution gives, because the two are added.
* Without refinement the four resolutions are rescaled and summed as an exchange of HRNet would, for the highest resolution.

The trunk has the layer names of `kpose.models.hrnet`: published weights of HRNet fit.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kpose.errors import KposeError
from kpose.models.checks import check_input_size, check_num_keypoints
from kpose.models.convolutions import he_normal, heatmap_conv, normalise, small_normal
from kpose.models.hrnet import RECIPE, STRIDE, Recipe, exchange, first_stage, hrnet_conv, parallel_stages, plain_sum

RESOLUTIONS = 4


@keras.saving.register_keras_serializable(package="kpose")
class ResolutionWeightedSum(keras.layers.Layer):
    """The sum of M maps, each times a weight of its own per image (equations 2 and 3).

    The weights are the softmax over the M scores, times a learned scale plus a learned offset per map. Scale starts at M and offset at
    0: where all scores are equal, every weight is 1 and the sum a plain one, so that weights trained with plain sums keep their
    meaning. Weights are computed in the precision of the variables, also under mixed precision.

    Call it with two lists: M maps (B, H, W, C), and M scores (B, 1, 1, 1). Output (B, H, W, C).
    """

    def build(self, maps_shape: list[tuple[int | None, ...]], scores_shape: list[tuple[int | None, ...]]) -> None:
        """Makes scale and offset, one number per map."""
        count = len(maps_shape)
        self.scale = self.add_weight(name="scale", shape=(count,), initializer=keras.initializers.Constant(count), autocast=False)
        self.offset = self.add_weight(name="offset", shape=(count,), initializer="zeros", autocast=False)

    def call(self, maps: list[Any], scores: list[Any]) -> Any:
        """The weighted sum."""
        scores = ops.cast(ops.concatenate(scores, axis=-1), self.variable_dtype)
        weights = ops.cast(ops.softmax(scores, axis=-1) * self.scale + self.offset, self.compute_dtype)
        total = maps[0] * weights[..., :1]
        for index, x in enumerate(maps[1:], start=1):
            total = total + x * weights[..., index : index + 1]
        return total

    def compute_output_shape(
        self, maps_shape: list[tuple[int | None, ...]], scores_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """That of each map."""
        return tuple(maps_shape[0])


def attentive_sum(maps: list[Any], name: str) -> Any:
    """Resolution-wise attention (section 3.1): every map's channel means give its score, the scores give the weights of the sum.

    Args:
        maps: M tensors (B, H, W, C), brought to one resolution.
        name: Prefix of the layer names.

    Returns:
        (B, H, W, C). Scores start at 0, which makes it a plain sum.
    """
    scores = []
    for index, x in enumerate(maps):
        prefix = f"{name}_attention_{index}"
        score = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}_mean")(x)
        score = keras.layers.Conv2D(x.shape[-1], 1, kernel_initializer=he_normal(), name=f"{prefix}_hidden_conv")(score)
        score = keras.layers.ReLU(name=f"{prefix}_hidden_relu")(score)
        scores.append(keras.layers.Conv2D(1, 1, kernel_initializer="zeros", name=f"{prefix}_score_conv")(score))
    return ResolutionWeightedSum(name=f"{name}_attention_sum")(maps, scores)


def gradual_refinement(branches: list[Any]) -> Any:
    """Gradual pyramid refinement (section 3.2): from the lowest resolution to the highest, upsampled, added, joined with the next one.

    Args:
        branches: The highest resolution first: (B, H, W, C), (B, H/2, W/2, 2C), ...

    Returns:
        (B, H, W, 2C).
    """
    x = branches[-1]
    for index in reversed(range(len(branches) - 1)):
        x = _refine(x, branches[index], f"refinement_{index}")
    return x


def _refine(x: Any, higher: Any, name: str) -> Any:
    """Equations 4 and 5: what the lower resolutions found, brought to the next higher one and set beside what that one found."""
    width = higher.shape[-1]
    # At stride 2 a 4x4 kernel pads evenly: "same" is PyTorch's padding=1.
    learned = keras.layers.Conv2DTranspose(
        width, 4, strides=2, padding="same", use_bias=False, kernel_initializer=small_normal(), name=f"{name}_upsample_conv"
    )(x)
    learned = normalise(learned, f"{name}_upsample", "relu")
    interpolated = hrnet_conv(x, width, name=f"{name}_interpolate", activation=None)
    interpolated = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_interpolate_upsample")(interpolated)
    added = keras.layers.Add(name=f"{name}_add")([learned, interpolated])
    return keras.layers.Concatenate(name=f"{name}_join")([added, higher])


def ram_gpr_hrnet(
    name: str,
    width: int,
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    attention: bool = True,
    refinement: bool = True,
    recipe: Recipe = RECIPE,
) -> keras.Model:
    """Builds a RAM+GPR network of any width.

    Args:
        name: Name of the model.
        width: Channels of the highest resolution.
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        attention: Whether exchanges weigh what they add up (RAM); False: HRNet's plain sums.
        refinement: Whether heatmaps come from gradual refinement (GPR); False: from the four resolutions rescaled and summed.
        recipe: Modules and blocks of the trunk.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output
        is float32 under mixed precision too. Weights start from normal(0, 0.001) in every convolution, as HRNet's, but for those of the
        attention, of whose start the paper says nothing: He (fan-out) in the first of the two, zero in the second. A fresh network
        so computes what it would without attention, also with a trained trunk.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    num_keypoints = check_num_keypoints(name, num_keypoints)
    input_size = check_input_size(name, input_size, multiple=STRIDE)
    for option, value in (("attention", attention), ("refinement", refinement)):
        if not isinstance(value, bool):
            raise KposeError(f"{name}: {option} is {value!r}, but must be True or False")

    inputs = keras.Input((*input_size, 3), name="image")
    fuse = attentive_sum if attention else plain_sum
    branches = parallel_stages(first_stage(inputs, width, recipe), recipe, outputs=RESOLUTIONS, fuse=fuse)[-1]
    x = gradual_refinement(branches) if refinement else exchange(branches, 0, plain_sum, "rescaled_sum")
    return keras.Model(inputs, heatmap_conv(x, num_keypoints), name=name)


def ram_gpr_hrnet_w32(
    num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), attention: bool = True, refinement: bool = True
) -> keras.Model:
    """Builds RAM+GPR on HRNet-W32; arguments, result and errors as for `ram_gpr_hrnet`."""
    return ram_gpr_hrnet("ram_gpr_hrnet_w32", 32, num_keypoints, input_size, attention, refinement)


def ram_gpr_hrnet_w48(
    num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), attention: bool = True, refinement: bool = True
) -> keras.Model:
    """Builds RAM+GPR on HRNet-W48; arguments, result and errors as for `ram_gpr_hrnet`."""
    return ram_gpr_hrnet("ram_gpr_hrnet_w48", 48, num_keypoints, input_size, attention, refinement)
