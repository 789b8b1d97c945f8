package org.kpose.pose.litert

import android.content.res.AssetManager
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import org.kpose.pose.ElementType
import org.kpose.pose.Heatmaps
import org.kpose.pose.ModelFile
import org.kpose.pose.Network
import org.kpose.pose.PoseException
import org.kpose.pose.Size
import org.kpose.pose.quantise

/**
 * How a network is run.
 *
 * @property threads of the CPU.
 * @property allowHalfPrecision whether a GPU may compute in float16, which is faster and changes heatmaps by about a hundredth.
 */
data class LiteRtOptions(val threads: Int = 4, val allowHalfPrecision: Boolean = true)

/**
 * A network of `kpose convert` in LiteRT, by its CompiledModel API: https://developers.google.com/edge/litert/next/android_kotlin.
 *
 * @property place `GPU`, or `CPU` and how many threads.
 * @property fallbackReason why it does not run on the GPU, though it was to; null where it does, or was not to.
 */
class LiteRtNetwork private constructor(
    private val file: ModelFile,
    private val model: CompiledModel,
    override val place: String,
    val fallbackReason: String?,
) : Network {
    override val inputSize: Size = file.card.inputSize
    private val heatmapSize = Size(file.output.shape[1], file.output.shape[2])
    private val inputs: List<TensorBuffer> = model.createInputBuffers()
    private val outputs: List<TensorBuffer> = model.createOutputBuffers()
    private val quantised = if (file.input.type == ElementType.INT8) ByteArray(inputSize.height * inputSize.width * 3) else null

    override fun run(crop: FloatArray): Heatmaps = told("$place cannot run the network") {
        if (quantised == null) {
            inputs.single().writeFloat(crop)
        } else {
            file.input.quantise(crop, quantised)
            inputs.single().writeInt8(quantised)
        }
        model.run(inputs, outputs)
        Heatmaps(heatmapSize, file.card.jointNames.size, outputs.single().readFloat())
    }

    override fun close() {
        inputs.forEach { it.close() }
        outputs.forEach { it.close() }
        model.close()
    }

    companion object {
        /**
         * Open a network on the GPU; where that does not take all of it, on the CPU (XNNPACK).
         *
         * @param assets of the app.
         * @param name of the asset.
         * @param file what [ModelFile.read] found in it.
         * @throws PoseException when the CPU does not take it either.
         */
        fun open(assets: AssetManager, name: String, file: ModelFile, options: LiteRtOptions = LiteRtOptions()): LiteRtNetwork =
            try {
                openOnGpu(assets, name, file, options)
            } catch (problem: PoseException) {
                openOnCpu(assets, name, file, options, problem.message)
            }

        /**
         * Open a network on the GPU, or not at all.
         *
         * The GPU is asked for alone: together with the CPU LiteRT would not tell which of them it took.
         *
         * @throws PoseException when it does not take all of it.
         */
        fun openOnGpu(assets: AssetManager, name: String, file: ModelFile, options: LiteRtOptions = LiteRtOptions()): LiteRtNetwork {
            val precision =
                if (options.allowHalfPrecision) CompiledModel.GpuOptions.Precision.FP16 else CompiledModel.GpuOptions.Precision.FP32
            val compilation = CompiledModel.Options(Accelerator.GPU)
            compilation.gpuOptions = CompiledModel.GpuOptions(precision = precision)
            return create(assets, name, file, compilation, "GPU", null)
        }

        /**
         * Open a network on the CPU.
         *
         * @param fallbackReason why not on the GPU, see [LiteRtNetwork.fallbackReason].
         * @throws PoseException when LiteRT does not take it.
         */
        fun openOnCpu(
            assets: AssetManager,
            name: String,
            file: ModelFile,
            options: LiteRtOptions = LiteRtOptions(),
            fallbackReason: String? = null,
        ): LiteRtNetwork {
            if (options.threads < 1) throw PoseException("threads must be at least 1, found ${options.threads}")
            val compilation = CompiledModel.Options(Accelerator.CPU)
            compilation.cpuOptions = CompiledModel.CpuOptions(numThreads = options.threads)
            return create(assets, name, file, compilation, "CPU, ${options.threads} threads", fallbackReason)
        }

        private fun create(
            assets: AssetManager,
            name: String,
            file: ModelFile,
            compilation: CompiledModel.Options,
            place: String,
            fallbackReason: String?,
        ): LiteRtNetwork = told("$place does not take $name") {
            val model = CompiledModel.create(assets, name, compilation)
            try {
                LiteRtNetwork(file, model, place, fallbackReason)
            } catch (problem: LiteRtException) {
                model.close()
                throw problem
            }
        }

        /** LiteRT's failures, a missing library among them, as this library's. */
        private inline fun <T> told(what: String, action: () -> T): T =
            try {
                action()
            } catch (problem: LiteRtException) {
                throw PoseException("$what: ${firstLine(problem)}", problem)
            } catch (problem: UnsatisfiedLinkError) {
                throw PoseException("$what: ${firstLine(problem)}", problem)
            }

        private fun firstLine(problem: Throwable): String = problem.message.orEmpty().lineSequence().first()
    }
}
