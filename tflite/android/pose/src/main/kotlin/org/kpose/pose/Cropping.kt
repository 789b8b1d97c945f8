package org.kpose.pose

import kotlin.math.floor

/**
 * Cut a crop out of a picture by bilinear interpolation; black outside of the picture, towards which it fades over one pixel.
 *
 * @param picture to cut from.
 * @param map from image to crop.
 * @param cropSize of the crop.
 * @param crop `(height, width, 3)` RGB in 0..255, not rounded: is filled.
 */
fun cutCrop(picture: Picture, map: CropMap, cropSize: Size, crop: FloatArray) {
    require(crop.size == cropSize.height * cropSize.width * 3) { "a crop of $cropSize has not ${crop.size} values" }
    val columns = Taps(cropSize.width, picture.size.width) { map.toImageX(it.toDouble()) }
    val rows = Taps(cropSize.height, picture.size.height) { map.toImageY(it.toDouble()) }
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

/** The two neighbours of each crop pixel along one axis of the picture, -1 for one outside of it, and the weight of the second. */
private class Taps(length: Int, pictureLength: Int, toImage: (Int) -> Double) {
    val before = IntArray(length)
    val after = IntArray(length)
    val weight = FloatArray(length)

    init {
        for (pixel in 0 until length) {
            val place = toImage(pixel)
            val first = floor(place)
            before[pixel] = inside(first, pictureLength)
            after[pixel] = inside(first + 1.0, pictureLength)
            weight[pixel] = (place - first).toFloat()
        }
    }

    private fun inside(place: Double, pictureLength: Int): Int = if (place >= 0.0 && place < pictureLength) place.toInt() else -1
}

private fun between(first: Int, second: Int, weight: Float): Float = first + (second - first) * weight

private val RED_GREEN_BLUE = intArrayOf(16, 8, 0)
