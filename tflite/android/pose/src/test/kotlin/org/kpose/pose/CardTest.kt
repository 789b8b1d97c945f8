package org.kpose.pose

import org.junit.Assert.assertEquals
import org.junit.Test

class CardTest {
    @Test
    fun readsWhatRunningTakes() {
        val card = Card.parse(CARD, "card")
        assertEquals(listOf("nose", "left_eye", "right_eye"), card.jointNames)
        assertEquals(listOf(0, 2, 1), card.flipPermutation)
        assertEquals(listOf(0 to 1, 0 to 2), card.limbs)
        assertEquals(Size(256, 192), card.inputSize)
        assertEquals(Alignment.UNBIASED, card.alignment)
        assertEquals(Decoding.DARK, card.decoding)
        assertEquals("the last stage's spread counts", 1.5, card.sigma, 0.0)
    }

    @Test
    fun refusesWhatCannotBeRun() {
        for ((part, change) in listOf(
            "codec 'offset' is not decoded" to ("\"gaussian\"" to "\"offset\""),
            "no joint 'right_ear'" to ("\"nose\", \"right_eye\"" to "\"nose\", \"right_ear\""),
            "names a joint more than once" to ("[\"nose\", \"left_eye\"" to "[\"left_eye\", \"left_eye\""),
            "'input_size' must be" to ("[256, 192]" to "[256, 0]"),
            "'decoding' is 'best', known are argmax, quarter_offset, dark" to ("\"dark\"" to "\"best\""),
            "'box_padding' must be above 0" to ("1.25" to "-1.25"),
            "sigma must be in" to ("\"sigma\": 2.0" to "\"sigma\": 1e9"),
            "'codec' is missing" to ("\"codec\"" to "\"codecs\""),
        )) {
            val (before, after) = change
            assertRefused(part) { Card.parse(CARD.replace(before, after).also { check(it != CARD) }, "card") }
        }
    }

    private companion object {
        const val CARD = """{"name": "lite_mobilenet_v3", "input_size": [256, 192], "box_padding": 1.25,
            "codec": {"name": "gaussian", "sigma": 2.0, "center": "exact", "alignment": "unbiased", "decoding": "dark",
            "stage_spread": [1, 0.75]},
            "skeleton": {"joint_names": ["nose", "left_eye", "right_eye"], "left_right_pairs": [["left_eye", "right_eye"]],
            "limbs": [["nose", "left_eye"], ["nose", "right_eye"]], "oks_sigmas": null}}"""
    }
}
