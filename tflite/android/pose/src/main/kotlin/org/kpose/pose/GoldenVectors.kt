package org.kpose.pose

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A person of the golden vectors, and what every runner must make of it. `tflite/golden/README.md` documents format and mathematics.
 *
 * @property name of the case.
 * @property picture the photo.
 * @property box image frame.
 * @property padding factor by which the box is grown.
 * @property alignment how photo, crop and heatmap correspond.
 * @property sigma standard deviation of the taught Gaussians, heatmap pixels.
 * @property cropSize of the crop.
 * @property ofNetwork whether the heatmaps are the network's for this crop; else they are drawn.
 * @property heatmaps to be decoded.
 * @property expectedMap from image to crop.
 * @property expectedCrop of every third row and column RGB in 0..255.
 * @property expectedKeypoints by decoding, image frame.
 */
class GoldenCase internal constructor(
    val name: String,
    val picture: Picture,
    val box: Box,
    val padding: Double,
    val alignment: Alignment,
    val sigma: Double,
    val cropSize: Size,
    val ofNetwork: Boolean,
    val heatmaps: Heatmaps,
    val expectedMap: CropMap,
    private val expectedCrop: FloatArray,
    val expectedKeypoints: Map<Decoding, List<Keypoint>>,
) {
    /** The map from image to crop, as this library has it. */
    val map: CropMap get() = CropMap.of(box, cropSize, padding, alignment)

    /** The crop `(height, width, 3)` as this library cuts it. */
    fun crop(): FloatArray = FloatArray(cropSize.height * cropSize.width * 3).also { cutCrop(picture, map, cropSize, it) }

    /** The joints of heatmaps of this case's crop, image frame, as this library decodes them. */
    fun keypoints(heatmaps: Heatmaps, decoding: Decoding): List<Keypoint> {
        val map = map
        return Decoder(cropSize, alignment, decoding, sigma).decode(heatmaps)
            .map { Keypoint(map.toImageX(it.x), map.toImageY(it.y), it.score) }
    }

    /** The largest difference of a crop from the expected one, grey levels. */
    fun cropDifference(crop: FloatArray): Double {
        val expected = expectedCrop.iterator()
        var largest = 0.0
        for (y in 0 until cropSize.height step CROP_STEP) {
            for (x in 0 until cropSize.width step CROP_STEP) {
                for (channel in 0 until 3) {
                    largest = Math.max(largest, Math.abs(crop[(y * cropSize.width + x) * 3 + channel] - expected.next()).toDouble())
                }
            }
        }
        return largest
    }

    /** The largest difference of joints from the expected ones, pixels of the photo. */
    fun keypointDifference(found: List<Keypoint>, decoding: Decoding): Double = farthest(found, expectedKeypoints.getValue(decoding))

    internal companion object {
        const val CROP_STEP = 3
    }
}

/** The largest distance in x or y between the same joints of two poses; NaN if any is. */
fun farthest(found: List<Keypoint>, expected: List<Keypoint>): Double {
    require(found.size == expected.size) { "${found.size} joints cannot be compared with ${expected.size}" }
    return found.zip(expected).fold(0.0) { largest, (mine, other) ->
        Math.max(largest, Math.max(Math.abs(mine.x - other.x), Math.abs(mine.y - other.y)))
    }
}

/**
 * A box that must be refused.
 *
 * @property name why.
 * @property pictureSize of the photo it is in.
 */
data class RefusedBox(val name: String, val pictureSize: Size, val box: Box)

/**
 * The golden vectors of a folder.
 *
 * @property network the checkpoint whose heatmaps they hold, for people.
 */
class GoldenVectors private constructor(val network: String, val cases: List<GoldenCase>, val refused: List<RefusedBox>) {
    companion object {
        /**
         * Read golden vectors.
         *
         * @param open gives the content of a file of the folder; named as the index names it.
         * @throws PoseException when the index is not one of these, or a file has another size than it says.
         */
        fun read(open: (String) -> ByteArray): GoldenVectors {
            val lines = String(open(INDEX), Charsets.US_ASCII).lines()
            if (lines.first() != TITLE) throw PoseException("$INDEX begins with '${lines.first().take(40)}', expected '$TITLE'")
            val head = HashMap<String, List<String>>()
            val cases = ArrayList<Pair<String, HashMap<String, List<String>>>>()
            val refused = ArrayList<RefusedBox>()
            for (line in lines.drop(1).filter { it.isNotBlank() }) {
                val words = line.split(' ')
                val values = words.drop(1)
                when (words[0]) {
                    "case" -> cases += values.first() to HashMap()
                    "refused" -> refused += refusedBox(values)
                    else -> (cases.lastOrNull()?.second ?: head)[words[0]] = values
                }
            }
            val joints = Words(head, INDEX).integers("joints", 1).single()
            val pictures = HashMap<List<String>, Picture>()
            val read = cases.map { (name, lines) -> golden(name, Words(lines, "$INDEX: case $name"), joints, pictures, open) }
            return GoldenVectors(Words(head, INDEX)["network"].joinToString(" "), read, refused)
        }

        private fun golden(
            name: String,
            words: Words,
            joints: Int,
            pictures: HashMap<List<String>, Picture>,
            open: (String) -> ByteArray,
        ): GoldenCase {
            val photo = words["photo"]
            val (photoWidth, photoHeight) = numbers(photo.drop(1), 2, name).map { it.toInt() }
            val picture = pictures.getOrPut(photo) { BytePicture(open(photo.first()), Size(photoHeight, photoWidth)) }
            val (cropHeight, cropWidth) = words.integers("input", 2)
            val cropSize = Size(cropHeight, cropWidth)
            val heatmaps = words["heatmaps"]
            val (rows, columns) = numbers(heatmaps.drop(1), 2, name).map { it.toInt() }
            val (scaleX, _, shiftX, _, scaleY, shiftY) = words.numbers("affine", 6)
            val step = GoldenCase.CROP_STEP
            val cropValues = ((cropHeight + step - 1) / step) * ((cropWidth + step - 1) / step) * 3
            return GoldenCase(
                name = name,
                picture = picture,
                box = box(words["box"], name),
                padding = words.numbers("padding", 1).single(),
                alignment = Alignment.entries.firstOrNull { it.name.lowercase() == words["alignment"].single() }
                    ?: throw PoseException("$INDEX: case $name has the alignment ${words["alignment"]}"),
                sigma = words.numbers("sigma", 1).single(),
                cropSize = cropSize,
                ofNetwork = heatmaps.first() == "network",
                heatmaps = Heatmaps(
                    Size(rows, columns), joints, shorts(open, "$name.heatmaps", rows * columns * joints) { it / HEATMAP_UNIT },
                ),
                expectedMap = CropMap(scaleX, scaleY, shiftX, shiftY),
                expectedCrop = shorts(open, "$name.crop", cropValues) { (it and 0xFFFF) / CROP_UNIT },
                expectedKeypoints = Decoding.entries.associateWith { decoding ->
                    words.numbers(decoding.name.lowercase(), 3 * joints).chunked(3) { (x, y, score) -> Keypoint(x, y, score.toFloat()) }
                },
            )
        }

        private fun refusedBox(words: List<String>): RefusedBox {
            if (words.size != 8) throw PoseException("$INDEX: a refused box has ${words.size} values, expected 8")
            val (width, height) = numbers(words.subList(2, 4), 2, words[0]).map { it.toInt() }
            return RefusedBox(words[0], Size(height, width), box(words.drop(4), words[0]))
        }

        private fun box(words: List<String>, name: String): Box {
            val (x, y, width, height) = numbers(words, 4, name)
            return Box(x, y, width, height)
        }

        /** The values of a file of 16-bit integers. */
        private fun shorts(open: (String) -> ByteArray, file: String, count: Int, value: (Int) -> Float): FloatArray {
            val bytes = open(file)
            if (bytes.size != 2 * count) throw PoseException("$file has ${bytes.size} bytes, the index says ${2 * count}")
            val content = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asShortBuffer()
            return FloatArray(count) { value(content.get(it).toInt()) }
        }

        internal fun numbers(words: List<String>, count: Int, where: String): List<Double> {
            val numbers = words.map { it.toDoubleOrNull() ?: throw PoseException("$INDEX: '$it' of $where is no number") }
            if (numbers.size != count) throw PoseException("$INDEX: $where has ${numbers.size} values where $count are expected")
            return numbers
        }

        private const val INDEX = "golden.txt"
        private const val TITLE = "kpose golden vectors 1"
        private const val CROP_UNIT = 256f
        private const val HEATMAP_UNIT = 16384f
    }

    /** The lines of a part of the index by their first word. */
    private class Words(private val lines: Map<String, List<String>>, private val where: String) {
        operator fun get(key: String): List<String> =
            lines[key]?.takeIf { it.isNotEmpty() } ?: throw PoseException("$where lacks '$key'")

        fun numbers(key: String, count: Int): List<Double> = numbers(get(key), count, "$where, $key")

        fun integers(key: String, count: Int): List<Int> = numbers(key, count).map { it.toInt() }
    }
}

private operator fun <T> List<T>.component6(): T = get(5)
