package org.kpose.pose

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class ReceiptTest {
    private val vectors = goldenVectors()
    private val ofNetwork = vectors.cases.filter { it.ofNetwork && it.cropSize == SIZE }
    private val joints = vectors.cases.first().heatmaps.joints
    private val card = colourCard(inputSize = SIZE).copy(jointNames = List(joints) { "joint $it" })

    /** Gives the golden heatmaps, each value a little more. */
    private inner class Golden(private val more: Float) : Network {
        override val inputSize = SIZE
        override val place = "memory"

        override fun run(crop: FloatArray): Heatmaps {
            val case = ofNetwork.firstOrNull { it.cropDifference(crop) < 1 } ?: ofNetwork.first()
            return Heatmaps(case.heatmaps.size, joints, FloatArray(case.heatmaps.values.size) { case.heatmaps.values[it] + more })
        }

        override fun close() = Unit
    }

    @Test
    fun tellsDifferencesAndFailures() {
        val receipt = measure("CPU" to { Golden(0f) }, "GPU" to { Golden(0.125f) }, "NPU" to { throw PoseException("no such thing") })
        val (cpu, gpu, npu) = receipt.places
        assertTrue("${receipt.cropDifference}", receipt.cropDifference < 0.1)
        for ((decoding, difference) in receipt.decodingDifference) assertTrue("$decoding $difference", difference < 0.01)
        assertEquals(ofNetwork.size, cpu.cases)
        assertEquals(0.0, cpu.differenceFromGolden, 0.0)
        assertTrue("${cpu.keypointDifference}", cpu.keypointDifference < 20.0)
        assertEquals(0.125, gpu.differenceFromGolden, 1e-6)
        assertEquals(0.125, gpu.differenceFromFirst, 1e-6)
        assertEquals("memory", gpu.ranAt)
        assertEquals("no such thing", npu.failure)
        assertNull(npu.ranAt)
        val text = receipt.text()
        for (part in listOf("a \"phone\"", "NPU: did not run: no such thing", "differ from CPU's by 0.125")) assertTrue(text, part in text)
    }

    @Test
    fun nanIsNotTakenForExact() {
        val (place) = measure("GPU" to { Golden(Float.NaN) }).places
        assertTrue(place.differenceFromGolden.isNaN())
        assertTrue("NaN" in measure("GPU" to { Golden(Float.NaN) }).text())
    }

    @Test
    fun isValidJson() {
        val receipt = measure("CPU" to { Golden(0f) }, "GPU" to { throw PoseException("a\nb \"c\"") })
        val json = JsonObject.parse(receipt.json(), "receipt")
        assertEquals("a \"phone\"", json.string("device"))
        val (cpu, gpu) = json.children("places")
        assertEquals(receipt.places[0].medianMilliseconds, cpu.number("median_milliseconds"), 0.0)
        assertEquals("a\nb \"c\"", gpu.string("failure"))
        assertTrue("a number that is none is null", !gpu.has("median_milliseconds"))
    }

    @Test
    fun closesTheNetwork() {
        val network = ColourNetwork(SIZE)
        Receipt.measure("phone", colourCard(inputSize = SIZE), vectors, mapOf("CPU" to { network }), runs = 1)
        assertTrue(network.closed)
    }

    private fun measure(vararg places: Pair<String, () -> Network>) =
        Receipt.measure("a \"phone\"", card, vectors, mapOf(*places), runs = 2)

    private companion object {
        val SIZE = Size(128, 96)
    }
}
