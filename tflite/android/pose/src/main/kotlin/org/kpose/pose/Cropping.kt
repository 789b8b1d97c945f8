package org.kpose.pose

import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/**
 * Cut a crop out of a picture by bilinear interpolation; black outside of the picture, towards which it fades over one pixel.
 *
 * It is computed in the order in which the Python code does it (`tflite/golden/README.md`, "To the bit"), for an int8 network rounds the
 * crop, and the least difference tips some of its values.
 *
 * @param picture to cut from.
 * @param map from image to crop.
 * @param cropSize of the crop.
 * @param crop `(height, width, 3)` RGB in 0..255, not rounded: is filled.
 */
fun cutCrop(picture: Picture, map: CropMap, cropSize: Size, crop: FloatArray) {
    require(crop.size == cropSize.height * cropSize.width * 3) { "a crop of $cropSize has not ${crop.size} values" }
    val columns = Taps(cropSize.width, picture.size.width, map.scaleX, map.shiftX, map.scaleY)
    val rows = Taps(cropSize.height, picture.size.height, map.scaleY, map.shiftY, map.scaleX)
    val picturePixel = { x: Int, y: Int -> if (x < 0 || y < 0) 0 else picture.rgb(x, y) }
    var place = 0
    for (y in 0 until cropSize.height) {
        for (x in 0 until cropSize.width) {
            val topLeft = picturePixel(columns.before[x], rows.before[y])
            val topRight = picturePixel(columns.after[x], rows.before[y])
            val bottomLeft = picturePixel(columns.before[x], rows.after[y])
            val bottomRight = picturePixel(columns.after[x], rows.after[y])
            for (shift in RED_GREEN_BLUE) {
                val top = between(topLeft shr shift and 0xFF, topRight shr shift and 0xFF, columns.weight[x])
                val bottom = between(bottomLeft shr shift and 0xFF, bottomRight shr shift and 0xFF, columns.weight[x])
                crop[place++] = top + (bottom - top) * rows.weight[y]
            }
        }
    }
}

/**
 * The two neighbours of each crop pixel along one axis of the picture, -1 for one outside of it, and the weight of the second.
 *
 * @param length of the crop.
 * @param pictureLength of the picture.
 * @param scale crop pixels per image pixel.
 * @param shift of the map.
 * @param otherScale that of the other axis: the order of operations has it.
 */
private class Taps(length: Int, pictureLength: Int, scale: Double, shift: Double, otherScale: Double) {
    val before = IntArray(length)
    val after = IntArray(length)
    val weight = FloatArray(length)

    init {
        // The part of the picture that the crop shows.
        val first = -(otherScale * shift) / (scale * otherScale)
        val last = otherScale / (scale * otherScale) * (length - 1) + first
        val start = min(max(floor(min(first, last)) - 1.0, 0.0), pictureLength - 1.0)
        val stop = max(min(floor(max(first, last)) + 3.0, pictureLength.toDouble()), start + 1.0)
        val partLength = (stop - start).toInt()

        // In it, framed by a black pixel at each end, all in 32 bits.
        val a = scale.toFloat()
        val d = otherScale.toFloat()
        val t = (scale * start + shift).toFloat()
        val determinant = a * d
        val extent = (partLength + 1).toFloat()
        val steps = (length - 1).toFloat()
        val begin = ((0f - d * t) / determinant + 1f) / extent
        val end = steps * (d / determinant / extent) + begin
        val step = (end - begin) * extent / steps
        for (pixel in 0 until length) {
            val place = begin * extent + pixel * step
            if (place in 0f..extent) {
                before[pixel] = source(floor(place).toInt(), start.toInt(), partLength)
                after[pixel] = source(ceil(place).toInt(), start.toInt(), partLength)
                weight[pixel] = place - floor(place)
            } else {
                before[pixel] = -1
                after[pixel] = -1
            }
        }
    }

    /** The pixel of the picture that has a place in the framed part. */
    private fun source(place: Int, start: Int, partLength: Int): Int = if (place in 1..partLength) start + place - 1 else -1
}

private fun between(first: Int, second: Int, weight: Float): Float = first + (second - first) * weight

private val RED_GREEN_BLUE = intArrayOf(16, 8, 0)
