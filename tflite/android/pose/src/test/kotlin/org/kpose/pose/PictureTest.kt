package org.kpose.pose

import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Test

class PictureTest {
    @Test
    fun packedPixelsAndBytesAreTheSame() {
        val size = Size(2, 3)
        val packed = ArgbPicture(IntArray(6) { 0xFF000000.toInt() or (it * 40 shl 16) or (it * 30 shl 8) or (250 - it) }, size)
        val bytes = ByteArray(2 * 16) { -1 }
        for (y in 0 until 2) {
            for (x in 0 until 3) {
                for ((channel, shift) in listOf(16, 8, 0).withIndex()) {
                    bytes[y * 16 + x * 4 + channel] = (packed.rgb(x, y) shr shift).toByte()
                }
            }
        }
        val rgba = BytePicture(bytes, size, pixelStride = 4, rowStride = 16)
        for (y in 0 until 2) for (x in 0 until 3) assertEquals(packed.rgb(x, y) and 0xFFFFFF, rgba.rgb(x, y))
    }

    @Test
    fun fadesToBlackOverOnePixel() {
        val picture = BytePicture(ByteArray(12) { 200.toByte() }, Size(2, 2))
        val crop = FloatArray(2 * 12 * 3)
        cutCrop(picture, CropMap(scaleX = 2.0, scaleY = 1.0, shiftX = 3.0, shiftY = 0.0), Size(2, 12), crop)
        val expected = floatArrayOf(0f, 0f, 100f, 200f, 200f, 200f, 100f, 0f, 0f, 0f, 0f, 0f)
        assertArrayEquals(expected, FloatArray(12) { crop[it * 3] }, 1e-4f)
    }

    @Test
    fun refusesTooFewBytes() {
        assertRefused("2 x 2") { BytePicture(ByteArray(11), Size(2, 2)) }
        assertRefused("2 x 2") { ArgbPicture(IntArray(3), Size(2, 2)) }
        assertRefused("0 x 2") { ArgbPicture(IntArray(0), Size(2, 0)) }
        assertRefused("at most") { BytePicture(ByteArray(0), Size(1 shl 20, 1 shl 20)) }
    }
}
