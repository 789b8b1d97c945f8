package org.kpose.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import android.util.AttributeSet
import android.view.View
import org.kpose.pose.Pose
import org.kpose.pose.SURE_SCORE
import org.kpose.pose.Size

/** Draws a pose over the camera's picture, which fills the view as far as its aspect ratio allows, and lines of text above it. */
class OverlayView(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private val density = resources.displayMetrics.density
    private val limbPaint = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.rgb(0, 200, 255)
        strokeWidth = 4 * density
        strokeCap = Paint.Cap.ROUND
    }
    private val jointPaint = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = Color.rgb(255, 90, 60) }
    private val textPaint = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.WHITE
        textSize = 14 * density
        setShadowLayer(3 * density, 0f, 0f, Color.BLACK)
    }
    private var pose: Pose? = null
    private var limbs: List<Pair<Int, Int>> = emptyList()
    private var pictureSize = Size(1, 1)
    private var lines: List<String> = emptyList()

    /**
     * Show something else.
     *
     * @param pose in pixels of the picture; null draws nobody.
     * @param limbs joints to connect, by index.
     * @param pictureSize of the camera's frames, upright.
     * @param lines of text.
     */
    fun show(pose: Pose?, limbs: List<Pair<Int, Int>>, pictureSize: Size, lines: List<String>) {
        this.pose = pose
        this.limbs = limbs
        this.pictureSize = pictureSize
        this.lines = lines
        invalidate()
    }

    override fun onDraw(canvas: Canvas) {
        super.onDraw(canvas)
        val scale = minOf(width.toFloat() / pictureSize.width, height.toFloat() / pictureSize.height)
        val left = (width - scale * pictureSize.width) / 2
        val top = (height - scale * pictureSize.height) / 2
        // Pixel centres sit at whole numbers.
        fun viewX(x: Double) = left + scale * (x.toFloat() + 0.5f)
        fun viewY(y: Double) = top + scale * (y.toFloat() + 0.5f)

        pose?.keypoints?.let { keypoints ->
            for ((first, second) in limbs) {
                val (from, to) = keypoints[first] to keypoints[second]
                if (from.score > SURE_SCORE && to.score > SURE_SCORE) {
                    canvas.drawLine(viewX(from.x), viewY(from.y), viewX(to.x), viewY(to.y), limbPaint)
                }
            }
            for (keypoint in keypoints) {
                if (keypoint.score > SURE_SCORE) canvas.drawCircle(viewX(keypoint.x), viewY(keypoint.y), 5 * density, jointPaint)
            }
        }
        lines.forEachIndexed { index, line -> canvas.drawText(line, 8 * density, (index + 1) * textPaint.fontSpacing, textPaint) }
    }
}
