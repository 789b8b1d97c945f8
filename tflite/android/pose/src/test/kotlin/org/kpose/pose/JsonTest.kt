package org.kpose.pose

import org.junit.Assert.assertEquals
import org.junit.Test

class JsonTest {
    @Test
    fun readsWhatJsonAllows() {
        val text = """ {"a": [1, -2.5e-3, true, false, null, {}], "b\n\u00e9\"": "x\\y / ü", "c": []} """
        val list = listOf(1.0, -2.5e-3, true, false, null, emptyMap<String, Any?>())
        val expected = mapOf("a" to list, "b\né\"" to "x\\y / ü", "c" to emptyList<Any?>())
        assertEquals(expected, parseJson(text, "text"))
    }

    @Test
    fun refusesEverythingElse() {
        for (text in listOf(
            "", "{", "[1, ]", "{\"a\" 1}", "{\"a\": 1, \"a\": 2}", "01", "1.", "NaN", "-", "\"\\x\"", "\"\\u00g0\"", "\"\n\"", "[1] 2",
            "tru", "{1: 2}", "[".repeat(100),
        )) {
            assertRefused("text is no valid JSON") { parseJson(text, "text") }
        }
    }

    @Test
    fun namesTheMemberThatDoesNotFit() {
        val json = JsonObject.parse("""{"number": 1.5, "list": [1, "a"], "object": {"inner": null}, "none": null}""", "file")
        assertRefused("file: 'string' is missing") { json.string("string") }
        assertRefused("'number' must be a string") { json.string("number") }
        assertRefused("'number' must hold whole numbers") { json.integer("number") }
        assertRefused("'list' must be a list of numbers") { json.numbers("list") }
        assertRefused("'list' must be a list of pairs") { json.stringPairs("list") }
        assertRefused("file: 'object': 'inner' must be a string") { json.child("object").string("inner") }
        assertRefused("file must be a JSON object") { JsonObject.parse("[]", "file") }
    }
}
