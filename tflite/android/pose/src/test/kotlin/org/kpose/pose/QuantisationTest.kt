package org.kpose.pose

import org.junit.Assert.assertArrayEquals
import org.junit.Test

class QuantisationTest {
    @Test
    fun aPictureFitsInt8() {
        val tensor = TensorDescription(listOf(1, 1, 2, 3), ElementType.INT8, 1f, -128)
        val bytes = ByteArray(6)
        tensor.quantise(floatArrayOf(0f, 0.4f, 127.6f, 255f, 254.5f, 300f), bytes)
        // Halves to the even neighbour, as numpy rounds.
        assertArrayEquals(byteArrayOf(-128, -128, 0, 127, 126, 127), bytes)
    }

    @Test
    fun theStepCounts() {
        val bytes = ByteArray(3)
        TensorDescription(listOf(1, 1, 1, 3), ElementType.INT8, 0.5f, 10).quantise(floatArrayOf(-100f, 1f, 50.4f), bytes)
        assertArrayEquals(byteArrayOf(-128, 12, 111), bytes)
    }
}
