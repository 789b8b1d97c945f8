package org.kpose.pose

/**
 * One person.
 *
 * @property keypoints image frame, in the order of the card's joint names.
 * @property score the mean score of the joints above 0.2, 0 where there is none.
 * @property box where the person was looked for, image frame.
 */
data class Pose(val keypoints: List<Keypoint>, val score: Double, val box: Box) {
    companion object {
        /** A pose of joints that were found in a box. */
        fun of(keypoints: List<Keypoint>, box: Box): Pose {
            val sure = keypoints.filter { it.score > SURE_SCORE }
            return Pose(keypoints, if (sure.isEmpty()) 0.0 else sure.sumOf { it.score.toDouble() } / sure.size, box)
        }
    }
}

/** Joints with a greater score count. */
const val SURE_SCORE = 0.2f
