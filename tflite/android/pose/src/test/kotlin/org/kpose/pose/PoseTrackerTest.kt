package org.kpose.pose

import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test

class PoseTrackerTest {
    private val size = Size(240, 320)
    private val whole = Box.whole(size)

    @Test
    fun followsThePerson() {
        val tracker = PoseTracker(PoseRunner(colourCard(), ColourNetwork(Size(128, 96))), smoother = null)
        var last: Pose? = null
        for (frame in 0 until 30) {
            val places = placesIn(Box(20.0 + 5 * frame, 5.0 + frame, 130.0, 190.0))
            val pose = tracker.next(dots(size, places, spread = 12.0), frame / 30.0)
            if (frame == 0) assertEquals(whole, pose.box) else assertTrue("$frame ${pose.box}", pose.box.width < 150)
            last = pose
            if (frame > 0) {
                for ((place, found) in places.zip(pose.keypoints)) assertEquals("$frame", place.x, found.x, 2.0)
            }
        }
        assertEquals("found in a crop of the person alone", 0.8 * 190 * 1.2, last!!.box.height, 10.0)
    }

    @Test
    fun looksAtTheWholePictureOnceThePersonIsLost() {
        val tracker = PoseTracker(PoseRunner(colourCard(), ColourNetwork(Size(128, 96))))
        val person = dots(size, placesIn(Box(100.0, 20.0, 130.0, 190.0)), spread = 12.0)
        tracker.next(person, 0.0)
        assertTrue(tracker.next(person, 0.1).box != whole)
        tracker.next(dots(size, emptyList()), 0.2)
        assertEquals(whole, tracker.next(person, 0.3).box)
        tracker.next(person, 0.4)
        tracker.reset()
        assertEquals(whole, tracker.next(person, 0.5).box)
    }

    @Test
    fun survivesAnotherPictureSize() {
        val tracker = PoseTracker(PoseRunner(colourCard(), ColourNetwork(Size(128, 96))))
        tracker.next(dots(size, placesIn(Box(180.0, 40.0, 130.0, 190.0)), spread = 12.0), 0.0)
        val small = Size(100, 100)
        assertEquals(Box.whole(small), tracker.next(dots(small, emptyList()), 0.1).box)
    }

    @Test
    fun theBoxIsThatOfThePythonCode() {
        // Refinement().next_box(np.array([[10, 20, .9], ...]), np.array([0, 0, 320, 240]))
        val joints = listOf(10.0 to 20.0, 60.0 to 25.0, 30.0 to 120.0, 55.0 to 200.0, 15.0 to 90.0).map { (x, y) -> Keypoint(x, y, 0.9f) }
        val unsure = Keypoint(300.0, 230.0, 0.2f)
        assertEquals(Box(0.0, 2.0, 78.0, 216.0), boxOfJoints(joints + unsure, whole))
        assertNull("four are too few", boxOfJoints(joints.drop(1) + unsure, whole))
        assertNull("no area", boxOfJoints(List(5) { Keypoint(5.0, 10.0, 0.9f) }, whole))
    }
}
