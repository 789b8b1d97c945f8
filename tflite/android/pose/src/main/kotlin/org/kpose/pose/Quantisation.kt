package org.kpose.pose

/** A crop as an int8 network takes it: of each value the nearest step, in `quantised`. */
fun TensorDescription.quantise(values: FloatArray, quantised: ByteArray) {
    require(values.size == quantised.size) { "${values.size} values do not fit ${quantised.size} bytes" }
    for (index in values.indices) {
        val step = Math.rint((values[index] / scale).toDouble()).toInt() + zeroPoint
        quantised[index] = step.coerceIn(Byte.MIN_VALUE.toInt(), Byte.MAX_VALUE.toInt()).toByte()
    }
}
