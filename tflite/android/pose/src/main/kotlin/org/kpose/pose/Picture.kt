package org.kpose.pose

/** A picture, RGB of 8 bits a channel. */
interface Picture {
    val size: Size

    /** The pixel in column x of row y, which must exist, as `0xRRGGBB`; bits above those have no meaning. */
    fun rgb(x: Int, y: Int): Int
}

/**
 * A picture of packed pixels, as `android.graphics.Bitmap.getPixels` gives them.
 *
 * @param pixels `0xAARRGGBB`, row by row.
 * @throws PoseException when there are not as many as the size asks for.
 */
class ArgbPicture(private val pixels: IntArray, override val size: Size) : Picture {
    init {
        requirePixels(size)
        if (pixels.size != size.height * size.width) throw PoseException("${pixels.size} pixels are not ${size.width} x ${size.height}")
    }

    override fun rgb(x: Int, y: Int): Int = pixels[y * size.width + x]
}

/**
 * A picture of bytes, as cameras and decoders give them.
 *
 * @param bytes red, green and blue of each pixel, row by row.
 * @param pixelStride bytes from a pixel to the next: 3 for RGB, 4 for RGBA.
 * @param rowStride bytes from a row to the next.
 * @throws PoseException when there are fewer bytes than the size asks for.
 */
class BytePicture(
    private val bytes: ByteArray,
    override val size: Size,
    private val pixelStride: Int = 3,
    private val rowStride: Int = pixelStride * size.width,
) : Picture {
    init {
        requirePixels(size)
        val last = (size.height - 1).toLong() * rowStride + (size.width - 1).toLong() * pixelStride + 3
        if (pixelStride < 3 || rowStride < pixelStride * size.width || bytes.size < last) {
            throw PoseException(
                "${bytes.size} bytes with $pixelStride a pixel and $rowStride a row are no picture of ${size.width} x ${size.height} pixels"
            )
        }
    }

    override fun rgb(x: Int, y: Int): Int {
        val place = y * rowStride + x * pixelStride
        return (bytes[place].toInt() and 0xFF shl 16) or (bytes[place + 1].toInt() and 0xFF shl 8) or (bytes[place + 2].toInt() and 0xFF)
    }
}

private fun requirePixels(size: Size) {
    if (size.height < 1 || size.width < 1 || size.height.toLong() * size.width > MOST_PIXELS) {
        throw PoseException("a picture of ${size.width} x ${size.height} pixels; expected at least 1 x 1 and at most $MOST_PIXELS pixels")
    }
}

// 512 MB of packed pixels: more than any phone's camera has.
private const val MOST_PIXELS = 1L shl 27
