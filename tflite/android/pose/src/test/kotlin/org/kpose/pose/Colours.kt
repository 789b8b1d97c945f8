package org.kpose.pose

import kotlin.math.max
import kotlin.math.min

/** People of six dots, each of another colour, and a network that finds them: no weights are needed to test what lies around a network. */
internal val COLOURS = listOf(0xFF0000, 0x00FF00, 0x0000FF, 0xFFFF00, 0x00FFFF, 0xFF00FF)

/** A card for [ColourNetwork]; red and cyan change places in a mirrored picture. */
internal fun colourCard(alignment: Alignment = Alignment.UNBIASED, inputSize: Size = Size(128, 96)) = Card(
    name = "colours",
    jointNames = listOf("red", "green", "blue", "yellow", "cyan", "magenta"),
    limbs = listOf(0 to 1),
    flipPermutation = listOf(4, 1, 2, 3, 0, 5),
    inputSize = inputSize,
    boxPadding = 1.25,
    alignment = alignment,
    decoding = Decoding.DARK,
    sigma = 1.0,
    licence = "",
)

/** A black picture with dots of three standard deviations about the given places; a place that is null has none. */
internal fun dots(size: Size, places: List<Point?>, spread: Double = 2.0): Picture {
    val pixels = IntArray(size.height * size.width)
    for ((index, place) in places.withIndex()) {
        place ?: continue
        for (y in 0 until size.height) {
            for (x in 0 until size.width) {
                val squared = (x - place.x) * (x - place.x) + (y - place.y) * (y - place.y)
                val bright = Math.rint(255 * Math.exp(-squared / (2 * spread * spread))).toInt()
                for (shift in listOf(16, 8, 0)) {
                    if (COLOURS[index] shr shift and 1 == 1) {
                        val before = pixels[y * size.width + x] shr shift and 0xFF
                        pixels[y * size.width + x] += max(0, bright - before) shl shift
                    }
                }
            }
        }
    }
    return ArgbPicture(pixels, size)
}

/** Joint k is where the colour k is; maps of a quarter of the crop's size, sampled at the places that the alignment says. */
internal class ColourNetwork(override val inputSize: Size, private val alignment: Alignment = Alignment.UNBIASED) : Network {
    override val place = "colours"
    var runs = 0
    var closed = false

    override fun run(crop: FloatArray): Heatmaps {
        runs++
        val size = Size(inputSize.height / 4, inputSize.width / 4)
        val strideX = alignment.extent(inputSize.width) / alignment.extent(size.width)
        val strideY = alignment.extent(inputSize.height) / alignment.extent(size.height)
        val values = FloatArray(size.height * size.width * COLOURS.size)
        var place = 0
        for (y in 0 until size.height) {
            for (x in 0 until size.width) {
                val source = Math.rint(y * strideY).toInt() * inputSize.width + Math.rint(x * strideX).toInt()
                val (red, green, blue) = List(3) { crop[source * 3 + it] / 255f }
                for (colour in COLOURS) {
                    val wanted = listOf(red to (colour shr 16), green to (colour shr 8), blue to colour)
                    val least = wanted.filter { it.second and 1 == 1 }.fold(1f) { value, (bright, _) -> min(value, bright) }
                    val other = wanted.filter { it.second and 1 == 0 }.fold(0f) { value, (bright, _) -> max(value, bright) }
                    values[place++] = max(0f, least - other)
                }
            }
        }
        return Heatmaps(size, COLOURS.size, values)
    }

    override fun close() {
        closed = true
    }
}

/** Six places in a box, in the order of the colours. */
internal fun placesIn(box: Box): List<Point> = listOf(
    Point(0.2, 0.1), Point(0.8, 0.2), Point(0.5, 0.4), Point(0.25, 0.6), Point(0.75, 0.7), Point(0.4, 0.9),
).map { Point(box.x + it.x * box.width, box.y + it.y * box.height) }

/** That a block refuses its input in one line that holds `part`. */
internal fun assertRefused(part: String, block: () -> Unit) {
    val message = try {
        block()
        null
    } catch (problem: PoseException) {
        problem.message!!
    }
    if (message == null) throw AssertionError("expected a refusal with '$part', but nothing was refused")
    if (part !in message || '\n' in message) throw AssertionError("expected one line with '$part', found: $message")
}
