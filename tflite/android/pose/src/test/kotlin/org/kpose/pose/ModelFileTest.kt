package org.kpose.pose

import java.io.File
import java.nio.ByteBuffer
import kotlin.random.Random
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Assume.assumeTrue
import org.junit.Test

/** Files of `kpose convert`: the system property kpose.models names a folder of some. */
class ModelFileTest {
    @Test
    fun readsCardAndTensors() {
        for (file in models()) {
            val model = ModelFile.read(ByteBuffer.wrap(file.readBytes()), file.name)
            val (height, width) = model.card.inputSize
            assertEquals(listOf(1, height, width, 3), model.input.shape)
            assertEquals(listOf(1, height / 4, width / 4, model.card.jointNames.size), model.output.shape)
            assertEquals(ElementType.FLOAT32, model.output.type)
            val int8 = "int8" in file.name
            assertEquals(file.name, if (int8) ElementType.INT8 else ElementType.FLOAT32, model.input.type)
            if (int8) {
                assertEquals("a step of the input is a grey level", 1f, model.input.scale, 0.01f)
                assertEquals(-128, model.input.zeroPoint)
            }
        }
    }

    @Test
    fun truncatedFilesAreRefused() {
        val content = models().first().readBytes()
        for (length in listOf(0, 4, 7, 8, 12, 100, content.size / 2)) {
            assertRefused("file is") { ModelFile.read(ByteBuffer.wrap(content.copyOf(length)), "file") }
        }
    }

    @Test
    fun damagedFilesAreRefusedOrRead() {
        val random = Random(0)
        val content = models().first().readBytes()
        var refused = 0
        repeat(400) {
            val damaged = content.copyOf()
            // The tables lie at the two ends, the weights between them.
            repeat(40) {
                val place = random.nextInt(4096).let { if (random.nextBoolean()) it else content.size - 1 - it }
                damaged[place] = random.nextInt().toByte()
            }
            try {
                ModelFile.read(ByteBuffer.wrap(damaged), "file")
            } catch (problem: PoseException) {
                assertTrue(problem.message!!, "file" in problem.message!! && '\n' !in problem.message!!)
                refused++
            }
        }
        assertTrue("$refused", refused > 0)
    }

    @Test
    fun otherFilesAreRefused() {
        assertRefused("picture.jpg is not a TFLite file") { ModelFile.read(ByteBuffer.wrap(ByteArray(1000)), "picture.jpg") }
        val content = models().first().readBytes()
        val name = ModelFile.CARD_NAME.toByteArray()
        val place = (0..content.size - name.size).first { start -> name.indices.all { content[start + it] == name[it] } }
        content[place] = 'x'.code.toByte()
        assertRefused("has no card of kpose") { ModelFile.read(ByteBuffer.wrap(content), "file") }
    }

    private fun models(): List<File> {
        val files = System.getProperty("kpose.models")?.let { File(it).listFiles { file -> file.extension == "tflite" } }
        assumeTrue("no networks: set the system property kpose.models to a folder of files of kpose convert", !files.isNullOrEmpty())
        return files!!.sorted()
    }
}
