package org.kpose.pose.desktop

import java.io.File
import org.kpose.pose.Heatmaps
import org.kpose.pose.ModelFile
import org.kpose.pose.Network
import org.kpose.pose.PoseException
import org.kpose.pose.Size

/** Where a network may run; numbered as in `pose_runner.h`. */
enum class DesktopAccelerator { AUTO, CPU, GPU }

/**
 * A network of `kpose convert` in LiteRT on the desktop, by way of the native runner: stands in for Android's LiteRT, so that this library
 * runs end to end where there is no phone. The shared library made of `desktop_network.c` must have been loaded (`System.load`).
 *
 * @param model the file.
 * @param description what [ModelFile.read] found in it.
 * @param liteRt LiteRT's shared library.
 * @throws PoseException when it cannot be opened there.
 */
class DesktopNetwork(
    model: File,
    private val description: ModelFile,
    liteRt: File,
    threads: Int,
    accelerator: DesktopAccelerator,
) : Network {
    private var runner = NativeRunner.create(model.path, liteRt.path, threads, accelerator.ordinal)

    init {
        if (runner == 0L) throw PoseException(NativeRunner.lastError())
    }

    override val inputSize: Size = description.card.inputSize
    override val place: String = NativeRunner.accelerator(runner)

    override fun run(crop: FloatArray): Heatmaps {
        require(crop.size == inputSize.height * inputSize.width * 3) { "a crop of $inputSize has not ${crop.size} values" }
        val (_, height, width, joints) = description.output.shape
        val values = FloatArray(height * width * joints)
        if (NativeRunner.run(runner, crop, values) != 0) throw PoseException(NativeRunner.lastError())
        return Heatmaps(Size(height, width), joints, values)
    }

    override fun close() {
        NativeRunner.destroy(runner)
        runner = 0L
    }
}

private object NativeRunner {
    @JvmStatic
    external fun create(model: String, liteRt: String, threads: Int, accelerator: Int): Long

    @JvmStatic
    external fun destroy(runner: Long)

    @JvmStatic
    external fun lastError(): String

    @JvmStatic
    external fun accelerator(runner: Long): String

    @JvmStatic
    external fun run(runner: Long, crop: FloatArray, heatmaps: FloatArray): Int
}
