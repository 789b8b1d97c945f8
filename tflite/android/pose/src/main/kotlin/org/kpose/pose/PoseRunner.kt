package org.kpose.pose

/**
 * How long the parts of finding a person took, milliseconds.
 *
 * @property cropping cutting the crop out.
 * @property network running it, twice with the flip test.
 * @property decoding from heatmaps to joints.
 */
data class FrameTimes(val cropping: Double, val network: Double, val decoding: Double) {
    val total: Double get() = cropping + network + decoding
}

/**
 * Finds the joints of people whose boxes are known; of one person whose box is not, see [PoseTracker].
 *
 * Not for several threads at once.
 *
 * @param card what the network was trained to expect.
 * @param network from crops to heatmaps; remains its owner's to close.
 * @param flipTest average with the mirrored crop's answer: more exact, half as fast.
 * @throws PoseException when the network takes other crops than the card says.
 */
class PoseRunner(val card: Card, private val network: Network, private val flipTest: Boolean = false) {
    private val decoder = Decoder(card.inputSize, card.alignment, card.decoding, card.sigma)
    private val crop = FloatArray(card.inputSize.height * card.inputSize.width * 3)
    private val mirrored = if (flipTest) FloatArray(crop.size) else null

    /** How long the last person took. */
    var lastTimes = FrameTimes(0.0, 0.0, 0.0)
        private set

    init {
        if (network.inputSize != card.inputSize) {
            throw PoseException("the network takes crops of ${network.inputSize}, its card says ${card.inputSize}; convert it again")
        }
    }

    /** Run the network on black crops, so that what it sets up on its first runs does not delay the first picture. */
    fun warmUp(runs: Int = 3) {
        crop.fill(0f)
        repeat(runs) { network.run(crop) }
    }

    /**
     * The pose of the person in a box.
     *
     * @throws PoseException when the box is refused, see [Box.checked], or the network cannot be run.
     */
    fun find(picture: Picture, box: Box): Pose {
        val start = System.nanoTime()
        val map = CropMap.of(box.checked(picture.size), card.inputSize, card.boxPadding, card.alignment)
        cutCrop(picture, map, card.inputSize, crop)
        val cut = System.nanoTime()
        val heatmaps = heatmaps()
        val ran = System.nanoTime()
        val pose = Pose.of(decoder.decode(heatmaps).map { Keypoint(map.toImageX(it.x), map.toImageY(it.y), it.score) }, box)
        lastTimes = FrameTimes(milliseconds(start, cut), milliseconds(cut, ran), milliseconds(ran, System.nanoTime()))
        return pose
    }

    /** The poses of the people in boxes, in their order. */
    fun find(picture: Picture, boxes: List<Box>): List<Pose> = boxes.map { find(picture, it) }

    private fun heatmaps(): Heatmaps {
        val heatmaps = network.run(crop)
        if (heatmaps.joints != card.jointNames.size) {
            throw PoseException("the network gives ${heatmaps.joints} heatmaps, its card names ${card.jointNames.size} joints")
        }
        if (mirrored == null) return heatmaps
        mirrorCrop(crop, card.inputSize, mirrored)
        return heatmaps.averagedWith(network.run(mirrored).unmirrored(card.flipPermutation, card.alignment))
    }
}

internal fun milliseconds(from: Long, to: Long): Double = (to - from) / 1e6
