package org.kpose.pose

/**
 * The heatmaps of one crop.
 *
 * @property size of each map.
 * @property joints how many maps there are.
 * @property values `(height, width, joints)`.
 */
class Heatmaps(val size: Size, val joints: Int, val values: FloatArray) {
    init {
        require(values.size == size.height * size.width * joints) { "${values.size} values are not $joints maps of $size" }
    }

    /** The value of a joint's map in column x of row y. */
    fun at(x: Int, y: Int, joint: Int): Float = values[(y * size.width + x) * joints + joint]

    /**
     * The heatmaps of a mirrored crop, brought back to the crop itself.
     *
     * Under classic alignment a mirrored crop's maxima lie close to one pixel to the left of where they belong: they are moved by one.
     *
     * @param flipPermutation the joint that a joint becomes in a mirrored picture.
     * @param alignment of the network's maps.
     */
    fun unmirrored(flipPermutation: List<Int>, alignment: Alignment): Heatmaps {
        val shift = if (alignment == Alignment.CLASSIC) 1 else 0
        val back = FloatArray(values.size)
        var place = 0
        for (y in 0 until size.height) {
            for (x in 0 until size.width) {
                val source = size.width - 1 - maxOf(x - shift, 0)
                for (joint in 0 until joints) back[place++] = at(source, y, flipPermutation[joint])
            }
        }
        return Heatmaps(size, joints, back)
    }

    /** The mean of these maps and others of the same size. */
    fun averagedWith(other: Heatmaps): Heatmaps {
        require(size == other.size && joints == other.joints) { "maps of different sizes cannot be averaged" }
        return Heatmaps(size, joints, FloatArray(values.size) { 0.5f * (values[it] + other.values[it]) })
    }
}

/** The mirror image of a crop `(height, width, 3)`, into `mirrored`. */
internal fun mirrorCrop(crop: FloatArray, cropSize: Size, mirrored: FloatArray) {
    val row = cropSize.width * 3
    for (y in 0 until cropSize.height) {
        for (x in 0 until cropSize.width) {
            crop.copyInto(mirrored, y * row + (cropSize.width - 1 - x) * 3, y * row + x * 3, y * row + x * 3 + 3)
        }
    }
}
