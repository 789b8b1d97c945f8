package org.kpose.pose

/** A crop as an 8-bit network takes it: of each value the nearest step, in `quantised`. */
fun TensorDescription.quantise(values: FloatArray, quantised: ByteArray) {
    require(values.size == quantised.size) { "${values.size} values do not fit ${quantised.size} bytes" }
    val (least, greatest) = if (type == ElementType.UINT8) 0 to 255 else -128 to 127
    for (index in values.indices) {
        quantised[index] = (Math.rint((values[index] / scale).toDouble()).toInt() + zeroPoint).coerceIn(least, greatest).toByte()
    }
}

/** The numbers that an 8-bit tensor stands for. */
fun TensorDescription.dequantise(quantised: ByteArray): FloatArray = FloatArray(quantised.size) {
    val step = if (type == ElementType.UINT8) quantised[it].toInt() and 0xFF else quantised[it].toInt()
    (step - zeroPoint) * scale
}
