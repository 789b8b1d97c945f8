package org.kpose.pose

import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min

/**
 * From the maximum of a heatmap to the centre of the Gaussian beneath it.
 *
 * Zhang et al., "Distribution-Aware Coordinate Representation for Human Pose Estimation", CVPR 2020, with the borders and limits of
 * `kpose/codecs/dark.py`: the map is blurred by a Gaussian about as wide as the taught one and scaled back to its former maximum; its
 * logarithm is a parabola, whose top is one Newton step away. Maxima on the two outermost rows and columns stay where they are, and so do
 * those without curvature.
 *
 * @param maximum of the joint's map.
 * @param sigma standard deviation of the taught Gaussians, heatmap pixels.
 * @return heatmap pixels.
 */
internal fun darkOffset(heatmaps: Heatmaps, joint: Int, maximum: Pixel, sigma: Double): Point {
    val (x, y) = maximum
    val stays = Point(0.0, 0.0)
    val (height, width) = heatmaps.size
    if (min(height, width) < 5 || x <= 1 || x >= width - 2 || y <= 1 || y >= height - 2) return stays
    val blurred = blur(heatmaps, joint, gaussianKernel(modulationSize(sigma)))
    val highest = blurred.max()
    // 0 where the map is a single peak among negative values that outweigh it.
    val scale = if (highest > 0f) heatmaps.at(x, y, joint) / highest else 0f

    // In 32 bits up to the logarithm, as in Python: where the map is almost nothing, the last bit counts.
    fun log(right: Int, below: Int): Double {
        val value = max(blurred[(y + below) * width + x + right] * scale, SMALLEST)
        return ln(value.toDouble()).toFloat().toDouble()
    }

    val middle = log(0, 0)
    val dx = 0.5 * (log(1, 0) - log(-1, 0))
    val dy = 0.5 * (log(0, 1) - log(0, -1))
    val dxx = 0.25 * (log(2, 0) - 2.0 * middle + log(-2, 0))
    val dyy = 0.25 * (log(0, 2) - 2.0 * middle + log(0, -2))
    val dxy = 0.25 * (log(1, 1) - log(1, -1) - log(-1, 1) + log(-1, -1))
    val determinant = dxx * dyy - dxy * dxy
    if (determinant == 0.0) return stays
    return Point((dxy * dy - dyy * dx) / determinant, (dxy * dx - dxx * dy) / determinant)
}

/** The largest odd size up to 6 sigma, at least 3. */
internal fun modulationSize(sigma: Double): Int = max(3, 2 * floor(3.0 * sigma - 0.5).toInt() + 1)

/** OpenCV's kernel of a size: up to 9 pixels a table, beyond a Gaussian with standard deviation 0.15 x size + 0.35. */
internal fun gaussianKernel(size: Int): FloatArray {
    SMALL_KERNELS[size]?.let { return it }
    val sigma = 0.15 * size + 0.35
    val weights = DoubleArray(size) { exp(-(it - size / 2) * (it - size / 2) / (2.0 * sigma * sigma)) }
    val sum = weights.sum()
    return FloatArray(size) { (weights[it] / sum).toFloat() }
}

/** A joint's map `(height, width)`, blurred; outside of it there is nothing. */
private fun blur(heatmaps: Heatmaps, joint: Int, kernel: FloatArray): FloatArray {
    val (height, width) = heatmaps.size
    val reach = kernel.size / 2
    val down = FloatArray(height * width)
    for (y in 0 until height) {
        for (tap in max(0, y - reach)..min(height - 1, y + reach)) {
            val weight = kernel[tap - y + reach]
            for (x in 0 until width) down[y * width + x] += weight * heatmaps.at(x, tap, joint)
        }
    }
    val blurred = FloatArray(height * width)
    for (y in 0 until height) {
        for (x in 0 until width) {
            var sum = 0f
            for (tap in max(0, x - reach)..min(width - 1, x + reach)) sum += kernel[tap - x + reach] * down[y * width + tap]
            blurred[y * width + x] = sum
        }
    }
    return blurred
}

// The authors' floor under the logarithm.
private const val SMALLEST = 1e-10f

private val SMALL_KERNELS = mapOf(
    3 to floatArrayOf(0.25f, 0.5f, 0.25f),
    5 to floatArrayOf(0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f),
    7 to floatArrayOf(0.03125f, 0.109375f, 0.21875f, 0.28125f, 0.21875f, 0.109375f, 0.03125f),
    9 to floatArrayOf(
        0.015625f, 0.05078125f, 0.1171875f, 0.19921875f, 0.234375f, 0.19921875f, 0.1171875f, 0.05078125f, 0.015625f,
    ),
)
