package org.kpose.pose

import java.io.File
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test

/** This library against the numbers that the Python code gave. */
class GoldenTest {
    @Test
    fun mapsFromImageToCrop() = forEachCase { case ->
        val (expected, found) = case.expectedMap to case.map
        for ((mine, other) in listOf(
            found.scaleX to expected.scaleX,
            found.scaleY to expected.scaleY,
            found.shiftX to expected.shiftX,
            found.shiftY to expected.shiftY,
        )) {
            assertEquals(case.name, other, mine, 1e-4 * Math.max(1.0, Math.abs(other)))
        }
    }

    @Test
    fun crops() = forEachCase { case ->
        // Half a step of what is stored: they are equal, see cutCrop.
        assertTrue("${case.name} ${case.cropDifference(case.crop())}", case.cropDifference(case.crop()) <= 1.0 / 512)
    }

    @Test
    fun keypoints() = forEachCase { case ->
        for (decoding in Decoding.entries) {
            val found = case.keypoints(case.heatmaps, decoding)
            val difference = case.keypointDifference(found, decoding)
            assertTrue("${case.name} $decoding $difference", difference < 0.01)
            for ((mine, other) in found.zip(case.expectedKeypoints.getValue(decoding))) assertEquals(other.score, mine.score, 1e-6f)
        }
    }

    @Test
    fun refusesBoxes() {
        val refused = goldenVectors().refused
        assertTrue(refused.isNotEmpty())
        for (box in refused) assertRefused("box") { box.box.checked(box.pictureSize) }
    }

    @Test
    fun refusesFilesOfAnotherSize() = assertRefused("the index says") {
        val open = goldenFiles()
        GoldenVectors.read { name -> open(name).let { if (name.endsWith(".heatmaps")) it.copyOf(it.size - 2) else it } }
    }

    @Test
    fun refusesAnotherIndex() = assertRefused("expected 'kpose golden vectors 1'") { GoldenVectors.read { "something".toByteArray() } }

    private fun forEachCase(check: (GoldenCase) -> Unit) {
        val cases = goldenVectors().cases
        assertTrue(cases.isNotEmpty())
        cases.forEach(check)
    }
}

internal fun goldenVectors(): GoldenVectors = GoldenVectors.read(goldenFiles())

private fun goldenFiles(): (String) -> ByteArray {
    val folder = System.getProperty("kpose.golden")
    assumeTrue("no golden vectors: set the system property kpose.golden to their folder", folder != null && File(folder).isDirectory)
    return { File(folder, it).readBytes() }
}
