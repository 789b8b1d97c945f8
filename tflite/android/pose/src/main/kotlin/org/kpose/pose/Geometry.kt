package org.kpose.pose

import kotlin.math.max
import kotlin.math.min

// Pixel centres sit at integer coordinates. Three frames occur: image (the picture), crop (the network's input), heatmap (its output).

/** Height and width, pixels. */
data class Size(val height: Int, val width: Int)

/** A point, pixels of the frame that its owner states. */
data class Point(val x: Double, val y: Double)

/** How crop and heatmap pixels correspond: `kpose/geometry.py` has the definitions. */
enum class Alignment {
    /** What most published weights were trained with: the crop spans as many pixels as it is wide. */
    CLASSIC,

    /** Lengths are measured between pixel centres (Huang et al., "The Devil is in the Details", CVPR 2020). */
    UNBIASED,
    ;

    /** What a side of so many pixels measures. */
    fun extent(pixels: Int): Double = if (this == CLASSIC) pixels.toDouble() else pixels - 1.0
}

/** A rectangle, image frame, pixels. */
data class Box(val x: Double, val y: Double, val width: Double, val height: Double) {
    /**
     * The box itself, if a person can be looked for in it.
     *
     * @throws PoseException when it is not finite, has no area or lies outside of a picture of `size`.
     */
    fun checked(size: Size): Box {
        if (!listOf(x, y, width, height).all { it.isFinite() }) throw PoseException("box $this holds NaN or infinity")
        if (width <= 0 || height <= 0) throw PoseException("box $this has no area; a box is x, y, width, height")
        if (x >= size.width || y >= size.height || x + width <= 0 || y + height <= 0) {
            throw PoseException("box $this lies outside of the picture of ${size.width} x ${size.height} pixels")
        }
        return this
    }

    /** Intersection over union. */
    fun overlap(other: Box): Double {
        val across = max(0.0, min(x + width, other.x + other.width) - max(x, other.x))
        val down = max(0.0, min(y + height, other.y + other.height) - max(y, other.y))
        return across * down / max(width * height + other.width * other.height - across * down, 1e-12)
    }

    override fun toString(): String = "[$x, $y, $width, $height]"

    companion object {
        /** The whole of a picture. */
        fun whole(size: Size): Box = Box(0.0, 0.0, size.width.toDouble(), size.height.toDouble())
    }
}

/**
 * The map from the image to an upright crop: `crop = scale * image + shift` in x and in y.
 *
 * @property scaleX crop pixels per image pixel across.
 * @property scaleY crop pixels per image pixel down.
 */
data class CropMap(val scaleX: Double, val scaleY: Double, val shiftX: Double, val shiftY: Double) {
    fun toImageX(cropX: Double): Double = (cropX - shiftX) / scaleX

    fun toImageY(cropY: Double): Double = (cropY - shiftY) / scaleY

    companion object {
        /**
         * The map of a person: the box is grown to the crop's aspect ratio about its centre, then by `padding`, and fills the crop.
         *
         * @param box image frame.
         * @param cropSize of the crop.
         * @param padding factor on both sides.
         * @param alignment how the crop's sides are measured.
         * @throws PoseException when the box is beyond what numbers can tell apart.
         */
        fun of(box: Box, cropSize: Size, padding: Double, alignment: Alignment): CropMap {
            // In 32 bits up to the padding, as in Python: see cutCrop.
            val aspectRatio = (cropSize.width.toDouble() / cropSize.height).toFloat()
            val (x, y, width, height) = listOf(box.x, box.y, box.width, box.height).map { it.toFloat() }
            val grown = max(width, height * aspectRatio)
            val across = alignment.extent(cropSize.width)
            val down = alignment.extent(cropSize.height)
            val scaleX = across / (grown * padding)
            val scaleY = down / (grown / aspectRatio * padding)
            val centerX = x + width * 0.5f
            val centerY = y + height * 0.5f
            val map = CropMap(scaleX, scaleY, across * 0.5 - scaleX * centerX, down * 0.5 - scaleY * centerY)
            // 0 x infinity and the like are NaN.
            if (!(map.toImageX(across) - map.toImageX(0.0) > 0 && map.toImageY(down) - map.toImageY(0.0) > 0)) {
                throw PoseException("box $box is too small or too large to compute with")
            }
            return map
        }
    }
}
