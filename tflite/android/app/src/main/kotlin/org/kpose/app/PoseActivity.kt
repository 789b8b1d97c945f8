package org.kpose.app

import android.Manifest
import android.app.AlertDialog
import android.content.pm.PackageManager
import android.os.Build
import android.os.Bundle
import android.view.Menu
import android.view.MenuItem
import androidx.activity.ComponentActivity
import androidx.activity.result.contract.ActivityResultContracts
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.AspectRatioStrategy
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.util.Locale
import java.util.concurrent.Executors
import org.kpose.pose.GoldenVectors
import org.kpose.pose.ModelFile
import org.kpose.pose.PoseException
import org.kpose.pose.PoseRunner
import org.kpose.pose.PoseTracker
import org.kpose.pose.Receipt
import org.kpose.pose.Size
import org.kpose.pose.litert.LiteRtNetwork

/** The back camera with the skeleton of the person in front of it, and the receipt in the menu. */
class PoseActivity : ComponentActivity() {
    // Everything about the network happens on this one thread.
    private val worker = Executors.newSingleThreadExecutor()
    private lateinit var overlay: OverlayView
    private lateinit var preview: PreviewView
    private var open: OpenNetwork? = null
    private val frame = CameraFrame()

    private class OpenNetwork(val file: ModelFile, val network: LiteRtNetwork) {
        val runner = PoseRunner(file.card, network)
        val tracker = PoseTracker(runner)
    }

    private val askForCamera = registerForActivityResult(ActivityResultContracts.RequestPermission()) { allowed ->
        if (allowed) startCamera() else show(getString(R.string.camera_refused))
    }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.pose)
        overlay = findViewById(R.id.overlay)
        preview = findViewById(R.id.preview)
        worker.execute {
            try {
                val file = readModel()
                open = OpenNetwork(file, LiteRtNetwork.open(assets, MODEL, file)).apply { runner.warmUp() }
            } catch (problem: PoseException) {
                runOnUiThread { show(problem.message.orEmpty()) }
            }
        }
        if (ContextCompat.checkSelfPermission(this, Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED) {
            startCamera()
        } else {
            askForCamera.launch(Manifest.permission.CAMERA)
        }
    }

    override fun onDestroy() {
        worker.execute { open?.network?.close() }
        worker.shutdown()
        super.onDestroy()
    }

    override fun onCreateOptionsMenu(menu: Menu): Boolean {
        menuInflater.inflate(R.menu.pose, menu)
        return true
    }

    override fun onOptionsItemSelected(item: MenuItem): Boolean {
        if (item.itemId != R.id.receipt) return super.onOptionsItemSelected(item)
        // Frames that come meanwhile are dropped: the worker is busy.
        show(getString(R.string.measuring))
        worker.execute {
            val text = try {
                measure()
            } catch (problem: PoseException) {
                problem.message.orEmpty()
            }
            runOnUiThread { if (!isDestroyed) AlertDialog.Builder(this).setTitle(R.string.receipt).setMessage(text).show() }
        }
        return true
    }

    private fun startCamera() {
        val provider = ProcessCameraProvider.getInstance(this)
        provider.addListener({ bindCamera(provider.get()) }, ContextCompat.getMainExecutor(this))
    }

    private fun bindCamera(provider: ProcessCameraProvider) {
        // Both of the same aspect ratio, so that the preview shows what the network sees.
        val shape = ResolutionSelector.Builder().setAspectRatioStrategy(AspectRatioStrategy.RATIO_4_3_FALLBACK_AUTO_STRATEGY).build()
        val shown = Preview.Builder().setResolutionSelector(shape).build()
        shown.surfaceProvider = preview.surfaceProvider
        val analysed = ImageAnalysis.Builder()
            .setResolutionSelector(shape)
            .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
            .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_RGBA_8888)
            .setOutputImageRotationEnabled(true)
            .build()
        analysed.setAnalyzer(worker) { image -> image.use(::analyse) }
        provider.unbindAll()
        provider.bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, shown, analysed)
    }

    private fun analyse(image: ImageProxy) {
        val open = open ?: return
        val picture = frame.picture(image)
        try {
            val pose = open.tracker.next(picture, image.imageInfo.timestamp / 1e9)
            val times = open.runner.lastTimes
            val lines = listOfNotNull(
                open.network.place,
                open.network.fallbackReason,
                String.format(
                    Locale.ROOT,
                    "%.1f ms: crop %.1f, network %.1f, decoding %.1f",
                    times.total,
                    times.cropping,
                    times.network,
                    times.decoding,
                ),
            )
            runOnUiThread { overlay.show(pose, open.file.card.limbs, picture.size, lines) }
        } catch (problem: PoseException) {
            runOnUiThread { show(problem.message.orEmpty()) }
        }
    }

    private fun show(line: String) = overlay.show(null, emptyList(), Size(1, 1), listOf(line))

    private fun readModel(): ModelFile = ModelFile.read(ByteBuffer.wrap(readAsset(MODEL)), MODEL)

    private fun readAsset(name: String): ByteArray = try {
        assets.open(name).use { it.readBytes() }
    } catch (problem: IOException) {
        throw PoseException("the app has no $name: copy it to app/src/main/assets and build it again", problem)
    }

    /** The receipt as text; it is written to the app's files too, as text and JSON. */
    private fun measure(): String {
        val file = readModel()
        val vectors = GoldenVectors.read(::readAsset)
        val device = "${Build.MANUFACTURER} ${Build.MODEL}, Android ${Build.VERSION.RELEASE}"
        val receipt = Receipt.measure(
            device,
            file.card,
            vectors,
            mapOf(
                "CPU" to { LiteRtNetwork.openOnCpu(assets, MODEL, file) },
                "GPU" to { LiteRtNetwork.openOnGpu(assets, MODEL, file) },
            ),
        )
        val folder = getExternalFilesDir(null) ?: filesDir
        File(folder, "receipt.txt").writeText(receipt.text())
        File(folder, "receipt.json").writeText(receipt.json())
        return receipt.text() + "\nwritten to $folder"
    }

    private companion object {
        const val MODEL = "pose.tflite"
    }
}
