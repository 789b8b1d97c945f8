package org.kpose.pose

import kotlin.math.PI
import kotlin.random.Random
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class SmoothingTest {
    @Test
    fun isTheFilterOfThePaper() {
        // By hand, from the equations: alpha = 1 / (1 + 1 / (2 pi cutoff step)).
        fun alpha(cutoff: Double, step: Double) = 1 / (1 + 1 / (2 * PI * cutoff * step))
        val filter = OneEuroFilter(minimumCutoff = 1.5, beta = 0.5, derivativeCutoff = 2.0)
        assertEquals(3.0, filter.filter(3.0, 10.0), 0.0)
        val speed = alpha(2.0, 0.1) * ((4.0 - 3.0) / 0.1)
        val expected = 3.0 + alpha(1.5 + 0.5 * speed, 0.1) * (4.0 - 3.0)
        assertEquals(expected, filter.filter(4.0, 10.1), 1e-12)
        val faster = speed + alpha(2.0, 0.2) * ((2.0 - expected) / 0.2 - speed)
        assertEquals(expected + alpha(1.5 + 0.5 * Math.abs(faster), 0.2) * (2.0 - expected), filter.filter(2.0, 10.3), 1e-12)
    }

    @Test
    fun restsWhatIsStillAndFollowsWhatIsFast() {
        val random = Random(1)
        val still = PoseSmoother()
        val found = List(200) { 100 + random.nextDouble(-2.0, 2.0) }
        val smoothed = found.mapIndexed { frame, x -> still.smooth(pose(x), frame / 30.0).keypoints[0].x }
        assertTrue("${trembling(smoothed)} of ${trembling(found)}", trembling(smoothed) < 0.6 * trembling(found))
        val fast = PoseSmoother()
        val lags = (0 until 60).map { 20.0 * it - fast.smooth(pose(20.0 * it), it / 30.0).keypoints[0].x }
        assertTrue("${lags.max()}", lags.drop(10).all { it in 0.0..20.0 })
    }

    @Test
    fun doesNotDependOnTheDistance() {
        fun smoothed(scale: Double) = PoseSmoother().let { smoother ->
            (0 until 20).map { smoother.smooth(pose(it * it * scale, boxSide = 100 * scale), it / 30.0).keypoints[0].x / scale }
        }
        for ((near, far) in smoothed(3.0).zip(smoothed(0.5))) assertEquals(near, far, 1e-9)
    }

    @Test
    fun unsureJointsPassAndBeginAnew() {
        val smoother = PoseSmoother()
        smoother.smooth(pose(0.0), 0.0)
        assertEquals(50.0, smoother.smooth(pose(50.0, score = 0.1f), 0.1).keypoints[0].x, 0.0)
        assertEquals(80.0, smoother.smooth(pose(80.0), 0.2).keypoints[0].x, 0.0)
        assertTrue(smoother.smooth(pose(90.0), 0.3).keypoints[0].x < 90.0)
        smoother.reset()
        assertEquals(10.0, smoother.smooth(pose(10.0), 0.4).keypoints[0].x, 0.0)
    }

    @Test
    fun aClockThatStandsBeginsAnew() {
        val filter = OneEuroFilter(1.0, 0.0)
        filter.filter(1.0, 5.0)
        assertEquals(7.0, filter.filter(7.0, 5.0), 0.0)
        assertEquals(9.0, filter.filter(9.0, 4.0), 0.0)
        assertRefused("above 0") { OneEuroFilter(0.0, 1.0) }
    }

    /** Mean distance of the second half from 100. */
    private fun trembling(values: List<Double>): Double = values.drop(100).map { Math.abs(it - 100) }.average()

    private fun pose(x: Double, score: Float = 0.9f, boxSide: Double = 100.0) =
        Pose(listOf(Keypoint(x, 5.0, score)), 0.9, Box(0.0, 0.0, boxSide / 2, boxSide))
}
