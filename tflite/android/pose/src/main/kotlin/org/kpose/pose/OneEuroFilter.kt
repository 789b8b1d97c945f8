package org.kpose.pose

import kotlin.math.PI
import kotlin.math.abs

/**
 * A low-pass filter whose cutoff rises with speed: still things rest, fast ones do not lag.
 *
 * Casiez, Roussel and Vogel, "1 Euro Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive Systems", CHI 2012.
 *
 * @param minimumCutoff cutoff at rest, Hz: less trembles less.
 * @param beta by how much the cutoff rises with speed, Hz per unit of speed: more lags less.
 * @param derivativeCutoff cutoff for the speed itself, Hz.
 */
class OneEuroFilter(private val minimumCutoff: Double, private val beta: Double, private val derivativeCutoff: Double = 1.0) {
    private var value = 0.0
    private var speed = 0.0
    private var time = Double.NaN

    init {
        if (!(minimumCutoff > 0 && derivativeCutoff > 0 && beta >= 0)) {
            throw PoseException("cutoffs must be above 0 and beta at least 0, found $minimumCutoff, $derivativeCutoff and $beta")
        }
    }

    /**
     * The smoothed value.
     *
     * @param measured now.
     * @param seconds of a clock that only goes forward; at a time that is not later than the last, the filter begins anew.
     * @param unit what speeds are measured in: a speed of one `unit` a second counts as 1.
     */
    fun filter(measured: Double, seconds: Double, unit: Double = 1.0): Double {
        val step = seconds - time
        time = seconds
        if (!(step > 0)) {
            value = measured
            speed = 0.0
            return value
        }
        speed += weight(derivativeCutoff, step) * ((measured - value) / (step * unit) - speed)
        value += weight(minimumCutoff + beta * abs(speed), step) * (measured - value)
        return value
    }

    /** Forget the past. */
    fun reset() {
        time = Double.NaN
    }

    private fun weight(cutoff: Double, step: Double): Double = 1.0 / (1.0 + 1.0 / (2.0 * PI * cutoff * step))
}
