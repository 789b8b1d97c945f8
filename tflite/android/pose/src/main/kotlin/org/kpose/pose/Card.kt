package org.kpose.pose

/** From the maximum of a heatmap to the joint. */
enum class Decoding { ARGMAX, QUARTER_OFFSET, DARK }

/**
 * What a network was trained to expect: the part of kpose's model card that running it takes.
 *
 * The card's normalisation (mean, std) is not among it: a converted file does that itself.
 *
 * @property name of the network.
 * @property jointNames in the order of the heatmaps.
 * @property limbs joints that a drawing connects, by index.
 * @property flipPermutation the joint that a joint becomes in a mirrored picture.
 * @property inputSize of the crop.
 * @property boxPadding factor by which a box is grown once it has the crop's aspect ratio.
 * @property alignment how crop and heatmap pixels correspond.
 * @property decoding from the maximum of a heatmap to the joint.
 * @property sigma standard deviation of the taught Gaussians, heatmap pixels.
 * @property licence of the weights.
 */
data class Card(
    val name: String,
    val jointNames: List<String>,
    val limbs: List<Pair<Int, Int>>,
    val flipPermutation: List<Int>,
    val inputSize: Size,
    val boxPadding: Double,
    val alignment: Alignment,
    val decoding: Decoding,
    val sigma: Double,
    val licence: String,
) {
    companion object {
        /**
         * Read a card.
         *
         * @param text the JSON inside of the file.
         * @param source what errors call it.
         * @throws PoseException when it is not a card of kpose, or one of a codec that this library does not decode.
         */
        fun parse(text: String, source: String): Card {
            val card = JsonObject.parse(text, source)
            val codec = card.child("codec")
            val codecName = codec.string("name")
            if (codecName != "gaussian") {
                throw PoseException("$source: codec '$codecName' is not decoded on the phone; train with codec.name=gaussian")
            }
            val skeleton = card.child("skeleton")
            val joints = skeleton.strings("joint_names")
            if (joints.isEmpty()) throw PoseException("$source: its skeleton has no joints")
            if (joints.distinct().size != joints.size) throw PoseException("$source: its skeleton names a joint more than once")
            fun joint(name: String): Int {
                val index = joints.indexOf(name)
                if (index < 0) throw PoseException("$source: its skeleton has no joint '$name'")
                return index
            }
            fun pairs(name: String) = skeleton.stringPairs(name).map { (first, second) -> joint(first) to joint(second) }
            val permutation = joints.indices.toMutableList()
            for ((left, right) in pairs("left_right_pairs")) {
                permutation[left] = right
                permutation[right] = left
            }
            val size = card.integers("input_size")
            if (size.size != 2 || size.any { it !in SMALLEST_SIDE..LARGEST_SIDE }) {
                throw PoseException("$source: 'input_size' must be height and width in $SMALLEST_SIDE..$LARGEST_SIDE, found $size")
            }
            val spread = if (codec.has("stage_spread")) codec.numbers("stage_spread").lastOrNull() ?: 1.0 else 1.0
            val sigma = codec.positive("sigma") * spread
            if (!(sigma > 0 && sigma <= LARGEST_SIGMA)) throw PoseException("$source: sigma must be in 0..$LARGEST_SIGMA, found $sigma")
            return Card(
                name = card.string("name"),
                jointNames = joints,
                limbs = pairs("limbs"),
                flipPermutation = permutation,
                inputSize = Size(size[0], size[1]),
                boxPadding = card.positive("box_padding"),
                alignment = named<Alignment>(codec.string("alignment"), "$source: 'alignment'"),
                decoding = named<Decoding>(codec.string("decoding"), "$source: 'decoding'"),
                sigma = sigma,
                licence = if (card.has("licence")) card.string("licence") else "",
            )
        }

        private inline fun <reified T : Enum<T>> named(name: String, what: String): T =
            enumValues<T>().firstOrNull { it.name.lowercase() == name }
                ?: throw PoseException("$what is '$name', known are ${enumValues<T>().joinToString { it.name.lowercase() }}")

        // Between pixel centres a single pixel has no length.
        private const val SMALLEST_SIDE = 2
        private const val LARGEST_SIDE = 8192
        private const val LARGEST_SIGMA = 64.0
    }
}
