package org.kpose.pose

import kotlin.math.max
import kotlin.math.min

/**
 * Follows a single person through a video: each frame is searched where the joints of the last one say, the first one as a whole.
 *
 * Not for several threads at once.
 *
 * @param runner finds the person in a box.
 * @param smoother of what is returned; null returns the joints as they are found. The next box always follows from those.
 */
class PoseTracker(private val runner: PoseRunner, private val smoother: PoseSmoother? = PoseSmoother()) {
    private var box: Box? = null

    /**
     * The person in the next frame.
     *
     * @param picture upright, of the same camera as the last one.
     * @param seconds when it was taken, of a clock that only goes forward.
     */
    fun next(picture: Picture, seconds: Double): Pose {
        val whole = Box.whole(picture.size)
        val found = runner.find(picture, box?.takeIf { it.overlap(whole) > 0 } ?: whole)
        box = boxOfJoints(found.keypoints, whole)
        if (box == null) smoother?.reset()
        return smoother?.smooth(found, seconds) ?: found
    }

    /** Look at the whole of the next frame. */
    fun reset() {
        box = null
        smoother?.reset()
    }
}

/**
 * The box of a person whose joints are known, for the next look at it: that of `kpose/inference/refinement.py`.
 *
 * @param keypoints image frame.
 * @param within which the box stays.
 * @return null where fewer than 5 joints are sure, or what they span has no area.
 */
fun boxOfJoints(keypoints: List<Keypoint>, within: Box): Box? {
    val sure = keypoints.filter { it.score > SURE_SCORE }
    if (sure.size < MINIMUM_JOINTS) return null
    val left = sure.minOf { it.x }
    val right = sure.maxOf { it.x }
    val top = sure.minOf { it.y }
    val bottom = sure.maxOf { it.y }
    // A body is larger than its joints.
    val grown = MARGIN * max(right - left, bottom - top)
    val low = Point(max(left - grown, within.x), max(top - grown, within.y))
    val high = Point(min(right + grown, within.x + within.width), min(bottom + grown, within.y + within.height))
    return if (high.x > low.x + 1 && high.y > low.y + 1) Box(low.x, low.y, high.x - low.x, high.y - low.y) else null
}

private const val MINIMUM_JOINTS = 5
private const val MARGIN = 0.1
