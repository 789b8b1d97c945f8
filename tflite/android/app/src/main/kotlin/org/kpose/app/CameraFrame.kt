package org.kpose.app

import androidx.camera.core.ImageProxy
import org.kpose.pose.BytePicture
import org.kpose.pose.Picture
import org.kpose.pose.Size

/** Pictures of the camera's RGBA frames; the bytes of the last one are used again. */
class CameraFrame {
    private var bytes = ByteArray(0)

    /** The picture, valid until the next call. */
    fun picture(image: ImageProxy): Picture {
        val plane = image.planes[0]
        val buffer = plane.buffer.apply { rewind() }
        if (bytes.size != buffer.remaining()) bytes = ByteArray(buffer.remaining())
        buffer.get(bytes)
        return BytePicture(bytes, Size(image.height, image.width), plane.pixelStride, plane.rowStride)
    }
}
