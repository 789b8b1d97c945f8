package org.kpose.pose

import kotlin.math.sign

/**
 * A joint.
 *
 * @property x column, pixels of the frame that its owner states.
 * @property y row.
 * @property score the maximum of its heatmap.
 */
data class Keypoint(val x: Double, val y: Double, val score: Float)

/**
 * Gaussian heatmaps to keypoints, as `kpose/codecs/gaussian.py` does it.
 *
 * @param cropSize of the crop that the heatmaps belong to.
 * @param alignment how crop and heatmap pixels correspond.
 * @param decoding from the maximum to the joint.
 * @param sigma standard deviation of the taught Gaussians, heatmap pixels.
 */
class Decoder(private val cropSize: Size, private val alignment: Alignment, private val decoding: Decoding, private val sigma: Double) {
    /**
     * The joints of heatmaps.
     *
     * @return crop frame; a map without a positive value gives 0, 0 and its maximum.
     */
    fun decode(heatmaps: Heatmaps): List<Keypoint> {
        val strideX = alignment.extent(cropSize.width) / alignment.extent(heatmaps.size.width)
        val strideY = alignment.extent(cropSize.height) / alignment.extent(heatmaps.size.height)
        return List(heatmaps.joints) { joint ->
            val maximum = findMaximum(heatmaps, joint)
            val score = heatmaps.at(maximum.x, maximum.y, joint)
            if (!(score > 0f)) return@List Keypoint(0.0, 0.0, score)
            val offset = when (decoding) {
                Decoding.ARGMAX -> Point(0.0, 0.0)
                Decoding.QUARTER_OFFSET -> quarterOffset(heatmaps, joint, maximum)
                Decoding.DARK -> darkOffset(heatmaps, joint, maximum, sigma)
            }
            Keypoint((maximum.x + offset.x) * strideX, (maximum.y + offset.y) * strideY, score)
        }
    }
}

/** A pixel of a heatmap. */
internal data class Pixel(val x: Int, val y: Int)

/** The maximum of a joint's map, of several the first in the order of the rows. */
private fun findMaximum(heatmaps: Heatmaps, joint: Int): Pixel {
    var best = 0
    val values = heatmaps.values
    for (pixel in 1 until heatmaps.size.height * heatmaps.size.width) {
        if (values[pixel * heatmaps.joints + joint] > values[best * heatmaps.joints + joint]) best = pixel
    }
    return Pixel(best % heatmaps.size.width, best / heatmaps.size.width)
}

/** A quarter of a pixel from the maximum towards its higher neighbours. */
private fun quarterOffset(heatmaps: Heatmaps, joint: Int, maximum: Pixel): Point {
    val (x, y) = maximum
    // The published decoders leave maxima on the first two and the last rows and columns where they are.
    if (x <= 1 || x >= heatmaps.size.width - 1 || y <= 1 || y >= heatmaps.size.height - 1) return Point(0.0, 0.0)
    val slopeX = heatmaps.at(x + 1, y, joint) - heatmaps.at(x - 1, y, joint)
    val slopeY = heatmaps.at(x, y + 1, joint) - heatmaps.at(x, y - 1, joint)
    return Point(0.25 * sign(slopeX), 0.25 * sign(slopeY))
}
