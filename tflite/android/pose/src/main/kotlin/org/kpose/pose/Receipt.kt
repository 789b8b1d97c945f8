package org.kpose.pose

import java.util.Locale

/**
 * What a network did with the golden vectors, in one place.
 *
 * @property place where it was to run, such as GPU.
 * @property ranAt where it ran, as it says itself; null where it could not be run.
 * @property failure why it could not be run.
 * @property cases how many crops it was shown.
 * @property differenceFromGolden largest difference of its heatmaps from the golden ones, which were computed by Keras.
 * @property keypointDifference the same of its joints, pixels of the photo, decoded as the card says.
 * @property differenceFromFirst largest difference of its heatmaps from those of the first place that was measured.
 * @property loadMilliseconds until it was ready.
 * @property medianMilliseconds of a run.
 */
data class PlaceReceipt(
    val place: String,
    val ranAt: String?,
    val failure: String?,
    val cases: Int,
    val differenceFromGolden: Double,
    val keypointDifference: Double,
    val differenceFromFirst: Double,
    val loadMilliseconds: Double,
    val medianMilliseconds: Double,
)

/**
 * Does a device give the numbers that the desk gave, and how fast is it?
 *
 * @property device for people: model, system, versions.
 * @property model name and input size of the network.
 * @property goldenNetwork the checkpoint that the golden heatmaps are of: with another one only the comparison of places tells something.
 * @property cropDifference largest difference of crops from the golden ones, grey levels.
 * @property decodingDifference the same of decoded golden heatmaps, pixels of the photo, by decoding.
 * @property runs that the median latency is of.
 * @property places in the order in which they were measured.
 */
data class Receipt(
    val device: String,
    val model: String,
    val goldenNetwork: String,
    val cropDifference: Double,
    val decodingDifference: Map<Decoding, Double>,
    val runs: Int,
    val places: List<PlaceReceipt>,
) {
    /** For people. */
    fun text(): String = buildString {
        appendLine("kpose parity and latency receipt")
        appendLine("device   $device")
        appendLine("network  $model")
        appendLine("golden   $goldenNetwork")
        appendLine("crops    differ by ${shown(cropDifference)} grey levels at most")
        for ((decoding, difference) in decodingDifference) {
            appendLine("${decoding.name.lowercase()}: joints of golden heatmaps differ by ${shown(difference)} px at most")
        }
        for (place in places) {
            appendLine()
            if (place.failure != null) {
                appendLine("${place.place}: did not run: ${place.failure}")
                continue
            }
            appendLine("${place.place}: ran at ${place.ranAt}, ready after ${shown(place.loadMilliseconds)} ms")
            appendLine("  median ${shown(place.medianMilliseconds)} ms of $runs runs")
            if (place.cases == 0) {
                appendLine("  no golden crop has the size that this network takes")
                continue
            }
            appendLine("  heatmaps of ${place.cases} golden crops differ from Keras' by ${shown(place.differenceFromGolden)} at most")
            appendLine("  joints differ by ${shown(place.keypointDifference)} px at most")
            if (place === places.first()) continue
            appendLine("  heatmaps differ from ${places.first().place}'s by ${shown(place.differenceFromFirst)} at most")
        }
    }

    /** For programs. */
    fun json(): String = jsonText(
        linkedMapOf(
            "device" to device,
            "model" to model,
            "golden_network" to goldenNetwork,
            "crop_difference" to cropDifference,
            "decoding_difference" to decodingDifference.mapKeys { it.key.name.lowercase() },
            "runs" to runs,
            "places" to places.map {
                linkedMapOf(
                    "place" to it.place,
                    "ran_at" to it.ranAt,
                    "failure" to it.failure,
                    "cases" to it.cases,
                    "difference_from_golden" to it.differenceFromGolden,
                    "keypoint_difference" to it.keypointDifference,
                    "difference_from_first" to it.differenceFromFirst,
                    "load_milliseconds" to it.loadMilliseconds,
                    "median_milliseconds" to it.medianMilliseconds,
                )
            },
        ),
    )

    companion object {
        /**
         * Run the golden vectors.
         *
         * @param device for people.
         * @param card of the network.
         * @param vectors golden.
         * @param places by their names what opens the network there; what it throws is noted. The first is what others are compared with.
         * @param runs that the median latency is of, after 3 that are not counted.
         */
        fun measure(device: String, card: Card, vectors: GoldenVectors, places: Map<String, () -> Network>, runs: Int = 50): Receipt {
            require(runs > 0) { "a median needs at least one run" }
            val crops = vectors.cases.associateWith { it.crop() }
            val shown = vectors.cases.filter { it.ofNetwork && it.cropSize == card.inputSize && it.heatmaps.joints == card.jointNames.size }
            var first: List<Heatmaps>? = null
            val measured = places.map { (place, open) ->
                try {
                    val start = System.nanoTime()
                    open().use { network ->
                        val blank = FloatArray(card.inputSize.height * card.inputSize.width * 3)
                        network.run(blank)
                        val ready = milliseconds(start, System.nanoTime())
                        val heatmaps = shown.map { network.run(crops.getValue(it)) }
                        val reference = first ?: heatmaps.also { first = it }
                        PlaceReceipt(
                            place = place,
                            ranAt = network.place,
                            failure = null,
                            cases = shown.size,
                            differenceFromGolden = largest(shown.zip(heatmaps) { case, maps -> difference(maps, case.heatmaps) }),
                            keypointDifference = largest(
                                shown.zip(heatmaps) { case, maps ->
                                    case.keypointDifference(case.keypoints(maps, card.decoding), card.decoding)
                                },
                            ),
                            differenceFromFirst = largest(heatmaps.zip(reference, ::difference)),
                            loadMilliseconds = ready,
                            medianMilliseconds = medianLatency(network, crops[shown.firstOrNull()] ?: blank, runs),
                        )
                    }
                } catch (problem: PoseException) {
                    PlaceReceipt(place, null, problem.message, 0, Double.NaN, Double.NaN, Double.NaN, Double.NaN, Double.NaN)
                }
            }
            return Receipt(
                device = device,
                model = "${card.name}, ${card.inputSize.height} x ${card.inputSize.width}",
                goldenNetwork = vectors.network,
                cropDifference = largest(crops.map { (case, crop) -> case.cropDifference(crop) }),
                decodingDifference = Decoding.entries.associateWith { decoding ->
                    largest(vectors.cases.map { it.keypointDifference(it.keypoints(it.heatmaps, decoding), decoding) })
                },
                runs = runs,
                places = measured,
            )
        }

        private fun medianLatency(network: Network, crop: FloatArray, runs: Int): Double {
            repeat(3) { network.run(crop) }
            val times = DoubleArray(runs) {
                val start = System.nanoTime()
                network.run(crop)
                milliseconds(start, System.nanoTime())
            }
            times.sort()
            return (times[(runs - 1) / 2] + times[runs / 2]) / 2
        }

        private fun difference(mine: Heatmaps, other: Heatmaps): Double {
            require(mine.size == other.size && mine.joints == other.joints) { "heatmaps of different sizes" }
            return largest(mine.values.indices.map { Math.abs(mine.values[it] - other.values[it]).toDouble() })
        }

        /** NaN if any is: a network that gives NaN must not look exact. */
        private fun largest(differences: List<Double>): Double = differences.fold(0.0, Math::max)

        private fun shown(number: Double): String =
            String.format(Locale.ROOT, if (number != 0.0 && number < 0.01) "%.2e" else "%.3f", number)
    }
}

private fun jsonText(value: Any?): String = when (value) {
    null -> "null"
    is Map<*, *> -> value.entries.joinToString(", ", "{", "}") { "${quoted(it.key.toString())}: ${jsonText(it.value)}" }
    is List<*> -> value.joinToString(", ", "[", "]", transform = ::jsonText)
    is Double -> if (value.isFinite()) value.toString() else "null"
    is Number -> value.toString()
    else -> quoted(value.toString())
}

private fun quoted(text: String): String = buildString {
    append('"')
    for (character in text) {
        when {
            character == '"' || character == '\\' -> append('\\').append(character)
            character < ' ' -> append(String.format(Locale.ROOT, "\\u%04x", character.code))
            else -> append(character)
        }
    }
    append('"')
}
