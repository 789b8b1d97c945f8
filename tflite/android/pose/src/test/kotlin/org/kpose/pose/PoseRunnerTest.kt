package org.kpose.pose

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class PoseRunnerTest {
    private val size = Size(240, 320)
    private val box = Box(90.0, 30.0, 90.0, 150.0)
    private val places = placesIn(box)
    private val picture = dots(size, places, spread = 4.0)

    @Test
    fun findsJointsWhereTheyAre() {
        for (alignment in Alignment.entries) {
            val pose = PoseRunner(colourCard(alignment), ColourNetwork(Size(128, 96), alignment)).find(picture, box)
            assertPlaces(places, pose, 1.0)
            assertTrue("${pose.score}", pose.score > 0.7)
        }
    }

    @Test
    fun theFlipTestFindsThemTooAndRunsTwice() {
        for ((alignment, within) in listOf(Alignment.UNBIASED to 1.0, Alignment.CLASSIC to 2.5)) {
            // The mirrored picture's colours are those of the joints that they become.
            val network = object : Network by ColourNetwork(Size(128, 96), alignment) {
                private val colours = ColourNetwork(Size(128, 96), alignment)
                var runs = 0

                override fun run(crop: FloatArray): Heatmaps {
                    val maps = colours.run(crop)
                    if (++runs % 2 == 1) return maps
                    val permutation = colourCard().flipPermutation
                    return Heatmaps(maps.size, 6, FloatArray(maps.values.size) { maps.values[it / 6 * 6 + permutation[it % 6]] })
                }
            }
            assertPlaces(places, PoseRunner(colourCard(alignment), network, flipTest = true).find(picture, box), within)
            assertEquals(2, network.runs)
        }
    }

    @Test
    fun findsEveryBox() {
        val other = Box(200.0, 100.0, 80.0, 120.0)
        val runner = PoseRunner(colourCard(), ColourNetwork(Size(128, 96)))
        val poses = runner.find(dots(size, placesIn(other), spread = 3.0), listOf(box, other))
        assertEquals(listOf(box, other), poses.map { it.box })
        assertPlaces(placesIn(other), poses[1], 1.0)
        assertTrue(runner.lastTimes.total > 0)
    }

    @Test
    fun nobodyHasTheScore0() {
        val runner = PoseRunner(colourCard(), ColourNetwork(Size(128, 96)))
        assertEquals(0.0, runner.find(dots(size, emptyList()), box).score, 0.0)
    }

    @Test
    fun warmsUp() {
        val network = ColourNetwork(Size(128, 96))
        PoseRunner(colourCard(), network).warmUp(4)
        assertEquals(4, network.runs)
    }

    @Test
    fun refusesBoxesAndNetworksThatDoNotFit() {
        val runner = PoseRunner(colourCard(), ColourNetwork(Size(128, 96)))
        assertRefused("has no area") { runner.find(picture, Box(1.0, 1.0, 0.0, 5.0)) }
        assertRefused("NaN or infinity") { runner.find(picture, Box(Double.NaN, 1.0, 5.0, 5.0)) }
        assertRefused("too small or too large") { runner.find(picture, Box(1.0, 1.0, 1e-300, 1e-300)) }
        assertRefused("too small or too large") { runner.find(picture, Box(1.0, 1.0, 1e300, 5.0)) }
        assertRefused("outside of the picture of 320 x 240") { runner.find(picture, Box(400.0, 1.0, 5.0, 5.0)) }
        assertRefused("convert it again") { PoseRunner(colourCard(), ColourNetwork(Size(64, 48))) }
        assertRefused("gives 6 heatmaps, its card names 5 joints") {
            PoseRunner(colourCard().copy(jointNames = List(5) { "$it" }), ColourNetwork(Size(128, 96))).find(picture, box)
        }
    }

    private fun assertPlaces(expected: List<Point>, pose: Pose, within: Double) {
        for ((place, found) in expected.zip(pose.keypoints)) {
            assertEquals(place.x, found.x, within)
            assertEquals(place.y, found.y, within)
        }
    }
}
