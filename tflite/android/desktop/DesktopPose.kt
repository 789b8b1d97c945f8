package org.kpose.pose.desktop

import java.io.File
import java.nio.ByteBuffer
import java.util.Locale
import javax.imageio.ImageIO
import kotlin.system.exitProcess
import org.kpose.pose.ArgbPicture
import org.kpose.pose.Box
import org.kpose.pose.GoldenVectors
import org.kpose.pose.ModelFile
import org.kpose.pose.Pose
import org.kpose.pose.PoseException
import org.kpose.pose.PoseRunner
import org.kpose.pose.PoseTracker
import org.kpose.pose.Receipt
import org.kpose.pose.Size

private const val USAGE = """DesktopPose JNI_LIBRARY LITERT_LIBRARY MODEL receipt GOLDEN_FOLDER RUNS [REPORT.json]
DesktopPose JNI_LIBRARY LITERT_LIBRARY MODEL find PHOTO X Y WIDTH HEIGHT [flip]
DesktopPose JNI_LIBRARY LITERT_LIBRARY MODEL track PHOTO PHOTO ..."""

/** The Android library on the desktop: the receipt, the joints of a person in a photo, or those in each of a row of photos. */
fun main(arguments: Array<String>) {
    if (arguments.size < 5) fail(USAGE)
    try {
        System.load(File(arguments[0]).absolutePath)
        val liteRt = File(arguments[1])
        val model = File(arguments[2])
        val file = ModelFile.read(ByteBuffer.wrap(model.readBytes()), model.name)
        fun open(accelerator: DesktopAccelerator) = DesktopNetwork(model, file, liteRt, threads = 1, accelerator)
        val rest = arguments.drop(4)
        when (arguments[3]) {
            "receipt" -> {
                val vectors = GoldenVectors.read { File(rest[0], it).readBytes() }
                val places = listOf(DesktopAccelerator.CPU, DesktopAccelerator.GPU).associate { it.name to { open(it) } }
                val receipt = Receipt.measure("desktop JVM", file.card, vectors, places, runs = rest[1].toInt())
                rest.getOrNull(2)?.let { File(it).writeText(receipt.json()) }
                print(receipt.text())
            }
            "find" -> open(DesktopAccelerator.CPU).use { network ->
                val (x, y, width, height) = rest.subList(1, 5).map { it.toDouble() }
                val runner = PoseRunner(file.card, network, flipTest = rest.getOrNull(5) == "flip")
                print(runner.find(photo(rest[0]), Box(x, y, width, height)))
            }
            "track" -> open(DesktopAccelerator.CPU).use { network ->
                val tracker = PoseTracker(PoseRunner(file.card, network), smoother = null)
                rest.forEachIndexed { frame, name -> print(tracker.next(photo(name), frame / 30.0)) }
            }
            else -> fail(USAGE)
        }
    } catch (problem: PoseException) {
        fail(problem.message.orEmpty())
    }
}

private fun photo(name: String): ArgbPicture {
    val image = ImageIO.read(File(name)) ?: throw PoseException("$name is no picture")
    return ArgbPicture(image.getRGB(0, 0, image.width, image.height, null, 0, image.width), Size(image.height, image.width))
}

/** The box and the score, and a line for each joint: x, y, score. */
private fun print(pose: Pose) {
    println(String.format(Locale.ROOT, "%.3f %.3f %.3f %.3f %.6f", pose.box.x, pose.box.y, pose.box.width, pose.box.height, pose.score))
    for (joint in pose.keypoints) println(String.format(Locale.ROOT, "%.4f %.4f %.6f", joint.x, joint.y, joint.score))
}

private fun fail(message: String): Nothing {
    System.err.println(message)
    exitProcess(2)
}
