package org.kpose.pose

/** A network from a crop to heatmaps, wherever it runs. Not for several threads at once. */
interface Network : AutoCloseable {
    /** Height and width of the crop. */
    val inputSize: Size

    /** Where it runs, for people: such as `GPU` or `CPU, 4 threads`. */
    val place: String

    /**
     * The heatmaps of a crop.
     *
     * @param crop `(height, width, 3)` RGB in 0..255.
     * @throws PoseException when the network cannot be run.
     */
    fun run(crop: FloatArray): Heatmaps
}
