package org.kpose.pose

import kotlin.math.max

/**
 * Smooths the joints of one person over the frames of a video, each coordinate by a [OneEuroFilter].
 *
 * Speeds are measured in the person's size (the longer side of the box) a second, so that settings do not depend on the distance. A joint
 * that is not sure is passed on as it is, and begins anew when it is found again.
 *
 * @param minimumCutoff cutoff at rest, Hz.
 * @param beta by how much the cutoff rises, Hz per person size a second.
 */
class PoseSmoother(private val minimumCutoff: Double = 1.0, private val beta: Double = 10.0) {
    private var filters: List<Pair<OneEuroFilter, OneEuroFilter>> = emptyList()

    /** The pose with smoothed joints; `seconds` as in [OneEuroFilter.filter]. */
    fun smooth(pose: Pose, seconds: Double): Pose {
        if (filters.size != pose.keypoints.size) filters = pose.keypoints.map { newFilter() to newFilter() }
        val unit = max(pose.box.width, pose.box.height)
        val keypoints = pose.keypoints.zip(filters) { keypoint, (horizontal, vertical) ->
            if (keypoint.score > SURE_SCORE) {
                Keypoint(horizontal.filter(keypoint.x, seconds, unit), vertical.filter(keypoint.y, seconds, unit), keypoint.score)
            } else {
                horizontal.reset()
                vertical.reset()
                keypoint
            }
        }
        return pose.copy(keypoints = keypoints)
    }

    /** Forget the past, as when another person comes. */
    fun reset() {
        filters = emptyList()
    }

    private fun newFilter() = OneEuroFilter(minimumCutoff, beta)
}
