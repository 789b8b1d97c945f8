package org.kpose.pose

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** How the values of a tensor are stored. */
enum class ElementType { FLOAT32, INT8 }

/**
 * A tensor as the file describes it.
 *
 * @property shape its sizes, the batch first.
 * @property type of its elements.
 * @property scale of integer elements: the value of a step; 0 where there is none.
 * @property zeroPoint the integer that stands for 0.
 */
data class TensorDescription(val shape: List<Int>, val type: ElementType, val scale: Float, val zeroPoint: Int)

/**
 * What a TFLite file of kpose says of itself; LiteRT is not asked, and nothing is executed.
 *
 * @property card what the network was trained to expect.
 * @property input one crop `(1, H, W, 3)` of RGB in 0..255.
 * @property output the heatmaps `(1, h, w, K)`.
 */
class ModelFile private constructor(val card: Card, val input: TensorDescription, val output: TensorDescription) {
    companion object {
        /**
         * Read the card and the two tensors of a file.
         *
         * @param content the whole file.
         * @param source what errors call it.
         * @throws PoseException when it is no TFLite file, damaged, has no card of kpose, or its tensors are not those of its card.
         */
        fun read(content: ByteBuffer, source: String): ModelFile {
            val bytes = Flatbuffer(content, source)
            val root = bytes.root(IDENTIFIER)
            val card = Card.parse(cardText(bytes, root, source), "$source: its card")
            val graphs = bytes.vector(root, SUBGRAPHS, mostEntries = 1)
            if (graphs.size != 1) throw PoseException("$source has ${graphs.size} graphs, a file of kpose has one")
            val graph = bytes.follow(graphs.entry(0, width = 4))
            val input = onlyTensor(bytes, graph, INPUTS, source)
            val output = onlyTensor(bytes, graph, OUTPUTS, source)
            val (height, width) = card.inputSize
            if (input.shape != listOf(1, height, width, 3)) {
                throw PoseException("$source takes ${input.shape}, but its card says crops of $height x $width pixels; convert it again")
            }
            val joints = card.jointNames.size
            if (output.shape.size != 4 || output.shape[0] != 1 || output.shape[3] != joints || output.shape[1] < 1 || output.shape[2] < 1) {
                throw PoseException("$source gives ${output.shape}, expected the heatmaps of $joints joints: [1, height, width, $joints]")
            }
            if (output.type != ElementType.FLOAT32) throw PoseException("$source gives ${output.type}, kpose writes heatmaps of float32")
            return ModelFile(card, input, output)
        }

        private fun cardText(bytes: Flatbuffer, root: Int, source: String): String {
            val entries = bytes.vector(root, METADATA, MOST_ENTRIES)
            for (position in 0 until entries.size) {
                val entry = bytes.follow(entries.entry(position, width = 4))
                if (bytes.string(entry, METADATA_NAME, LONGEST_NAME) != CARD_NAME) continue
                val buffers = bytes.vector(root, BUFFERS, MOST_BUFFERS)
                val number = bytes.integer(entry, METADATA_BUFFER, absent = 0)
                if (number !in 0 until buffers.size) {
                    throw PoseException("$source is damaged: its card is in buffer $number of ${buffers.size}")
                }
                val buffer = bytes.follow(buffers.entry(number, width = 4))
                return String(bytes.bytes(buffer, BUFFER_DATA, LARGEST_CARD_BYTES), Charsets.UTF_8)
            }
            throw PoseException("$source has no card of kpose inside; make it with kpose convert")
        }

        private fun onlyTensor(bytes: Flatbuffer, graph: Int, field: Int, source: String): TensorDescription {
            val indices = bytes.vector(graph, field, MOST_TENSORS)
            if (indices.size != 1) throw PoseException("$source has ${indices.size} inputs or outputs, a file of kpose has one of each")
            val tensors = bytes.vector(graph, TENSORS, MOST_TENSORS)
            val index = bytes.int(indices.entry(0, width = 4))
            if (index !in 0 until tensors.size) throw PoseException("$source is damaged: it names tensor $index of ${tensors.size}")
            val tensor = bytes.follow(tensors.entry(index, width = 4))
            val sizes = bytes.vector(tensor, TENSOR_SHAPE, mostEntries = 8)
            val shape = List(sizes.size) { bytes.int(sizes.entry(it, width = 4)) }
            val code = bytes.byte(tensor, TENSOR_TYPE, absent = 0)
            val type = TYPES[code] ?: throw PoseException("$source has an input or output of type $code, kpose writes float32 and int8")
            val quantisation = bytes.table(tensor, TENSOR_QUANTISATION)
            val scales = quantisation?.let { bytes.vector(it, QUANTISATION_SCALE, MOST_CHANNELS) }
            val zeros = quantisation?.let { bytes.vector(it, QUANTISATION_ZERO, MOST_CHANNELS) }
            val scale = if (scales != null && scales.size == 1) Float.fromBits(bytes.int(scales.entry(0, width = 4))) else 0f
            // The schema has 64 bits; the integers they stand beside have 8.
            val zero = if (zeros != null && zeros.size == 1) bytes.int(zeros.entry(0, width = 8)) else 0
            if (type != ElementType.FLOAT32 && !(scale > 0f && scale < Float.POSITIVE_INFINITY)) {
                throw PoseException("$source has an input or output of $type without a scale, kpose writes none such")
            }
            return TensorDescription(shape, type, scale, zero)
        }

        const val CARD_NAME = "kpose_card"
        private const val IDENTIFIER = "TFL3"
        private const val MOST_ENTRIES = 64
        private const val LONGEST_NAME = 256
        private const val MOST_BUFFERS = 1 shl 20
        private const val MOST_TENSORS = 1 shl 20
        private const val MOST_CHANNELS = 1 shl 20
        private const val LARGEST_CARD_BYTES = 1 shl 20

        // Numbers of the fields and types in LiteRT's schema (schema.fbs).
        private const val SUBGRAPHS = 2
        private const val BUFFERS = 4
        private const val METADATA = 6
        private const val METADATA_NAME = 0
        private const val METADATA_BUFFER = 1
        private const val BUFFER_DATA = 0
        private const val TENSORS = 0
        private const val INPUTS = 1
        private const val OUTPUTS = 2
        private const val TENSOR_SHAPE = 0
        private const val TENSOR_TYPE = 1
        private const val TENSOR_QUANTISATION = 4
        private const val QUANTISATION_SCALE = 2
        private const val QUANTISATION_ZERO = 3
        private val TYPES = mapOf(0 to ElementType.FLOAT32, 9 to ElementType.INT8)
    }
}

/** Walks a flatbuffer; every place is checked before it is read, so that a damaged file is an error and nothing else. */
private class Flatbuffer(content: ByteBuffer, private val source: String) {
    private val content = content.duplicate().order(ByteOrder.LITTLE_ENDIAN)
    private val start = content.position()
    private val size = content.remaining()

    /** A vector: where its first entry lies, and how many there are. */
    inner class Vector(private val first: Int, val size: Int) {
        /** The place of an entry of `width` bytes. */
        fun entry(position: Int, width: Int): Int {
            if (position !in 0 until size) damaged()
            return checked(first.toLong() + position.toLong() * width, width)
        }
    }

    fun root(identifier: String): Int {
        if (size < 8 || (0 until 4).any { content.get(start + 4 + it) != identifier[it].code.toByte() }) {
            throw PoseException("$source is not a TFLite file")
        }
        return follow(0)
    }

    fun int(place: Int): Int = content.getInt(start + checked(place.toLong(), 4))

    /** The place that the offset at `place` points to. */
    fun follow(place: Int): Int {
        val offset = int(place)
        if (offset <= 0) damaged()
        return checked(place.toLong() + offset, 4)
    }

    fun integer(table: Int, field: Int, absent: Int): Int = place(table, field)?.let(::int) ?: absent

    fun byte(table: Int, field: Int, absent: Int): Int =
        place(table, field)?.let { content.get(start + checked(it.toLong(), 1)).toInt() } ?: absent

    fun table(table: Int, field: Int): Int? = place(table, field)?.let(::follow)

    /** The vector of a field; empty where the field is absent. */
    fun vector(table: Int, field: Int, mostEntries: Int): Vector {
        val place = place(table, field)?.let(::follow) ?: return Vector(0, 0)
        val count = int(place)
        if (count !in 0..mostEntries) throw PoseException("$source claims a list of $count entries, expected at most $mostEntries; refused")
        return Vector(place + 4, count)
    }

    fun bytes(table: Int, field: Int, most: Int): ByteArray {
        val vector = vector(table, field, most)
        if (vector.size == 0) return ByteArray(0)
        val first = checked(vector.entry(0, width = 1).toLong(), vector.size)
        return ByteArray(vector.size) { content.get(start + first + it) }
    }

    fun string(table: Int, field: Int, most: Int): String = String(bytes(table, field, most), Charsets.UTF_8)

    /** Where the value of a field lies, null where the table does not have it. */
    private fun place(table: Int, field: Int): Int? {
        val virtualTable = checked(table.toLong() - int(table), 4)
        val virtualSize = short(virtualTable)
        val slot = 4 + 2 * field
        if (slot + 2 > virtualSize) return null
        val offset = short(checked(virtualTable.toLong() + slot, 2))
        return if (offset == 0) null else checked(table.toLong() + offset, 1)
    }

    private fun short(place: Int): Int = content.getShort(start + checked(place.toLong(), 2)).toInt() and 0xFFFF

    private fun checked(place: Long, width: Int): Int {
        if (place < 0 || place + width > size) damaged()
        return place.toInt()
    }

    private fun damaged(): Nothing = throw PoseException("$source is damaged: its card cannot be found")
}
