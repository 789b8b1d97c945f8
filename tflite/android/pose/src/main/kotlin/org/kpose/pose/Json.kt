package org.kpose.pose

/**
 * JSON as Kotlin values: `Map<String, Any?>`, `List<Any?>`, `String`, `Double`, `Boolean`, null.
 *
 * Android has a parser of its own, the desktop JVM has none; this one is the same on both, and refuses what is nested too deeply.
 *
 * @param text the document.
 * @param source what errors call it, such as its file.
 * @throws PoseException when it is not JSON.
 */
fun parseJson(text: String, source: String): Any? = JsonParser(text, source).document()

private class JsonParser(private val text: String, private val source: String) {
    private var position = 0

    fun document(): Any? {
        val value = value(depth = 0)
        skipSpace()
        if (position < text.length) fail("something follows the end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > DEEPEST) fail("nested more than $DEEPEST deep")
        skipSpace()
        return when (val first = peek()) {
            '{' -> members(depth)
            '[' -> elements(depth)
            '"' -> string()
            't' -> literal("true", true)
            'f' -> literal("false", false)
            'n' -> literal("null", null)
            else -> if (first == '-' || first in '0'..'9') number() else fail("unexpected '$first'")
        }
    }

    private fun members(depth: Int): Map<String, Any?> {
        val members = LinkedHashMap<String, Any?>()
        list('}') {
            skipSpace()
            if (peek() != '"') fail("expected a name in quotes")
            val name = string()
            skipSpace()
            take(':')
            if (members.containsKey(name)) fail("'$name' occurs twice")
            members[name] = value(depth + 1)
        }
        return members
    }

    private fun elements(depth: Int): List<Any?> {
        val elements = ArrayList<Any?>()
        list(']') { elements.add(value(depth + 1)) }
        return elements
    }

    /** What stands between brackets, separated by commas. */
    private fun list(close: Char, entry: () -> Unit) {
        position++
        skipSpace()
        if (peek() == close) {
            position++
            return
        }
        while (true) {
            entry()
            skipSpace()
            if (peek() == close) break
            take(',')
        }
        position++
    }

    private fun string(): String {
        val result = StringBuilder()
        position++
        while (true) {
            when (val next = take()) {
                '"' -> return result.toString()
                '\\' -> result.append(escaped())
                else -> if (next < ' ') fail("a control character in a string") else result.append(next)
            }
        }
    }

    private fun escaped(): Char = when (val kind = take()) {
        '"', '\\', '/' -> kind
        'b' -> '\b'
        'f' -> '\u000C'
        'n' -> '\n'
        'r' -> '\r'
        't' -> '\t'
        'u' -> {
            val digits = String(CharArray(4) { take() })
            if (!digits.all { it in '0'..'9' || it in 'a'..'f' || it in 'A'..'F' }) fail("'\\u$digits' is no character")
            digits.toInt(16).toChar()
        }
        else -> fail("unknown escape '\\$kind'")
    }

    private fun number(): Double {
        val start = position
        while (position < text.length && (text[position] in '0'..'9' || text[position] in "+-.eE")) position++
        val number = text.substring(start, position)
        if (!NUMBER.matches(number)) fail("'$number' is no number")
        return number.toDouble()
    }

    private fun literal(name: String, value: Any?): Any? {
        if (!text.startsWith(name, position)) fail("expected $name")
        position += name.length
        return value
    }

    private fun skipSpace() {
        while (position < text.length && text[position] in " \t\r\n") position++
    }

    private fun peek(): Char = if (position < text.length) text[position] else fail("it ends too early")

    private fun take(): Char = peek().also { position++ }

    private fun take(wanted: Char) {
        if (take() != wanted) fail("expected '$wanted'")
    }

    private fun fail(problem: String): Nothing = throw PoseException("$source is no valid JSON: $problem at character $position")

    private companion object {
        const val DEEPEST = 32
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}

/** A JSON object, whose members are asked for by name and kind; errors name the one that does not fit. */
class JsonObject private constructor(private val members: Map<*, *>, private val source: String) {
    /** Whether there is such a member, and it is not null. */
    fun has(name: String): Boolean = members[name] != null

    fun string(name: String): String = member(name, "a string")

    fun number(name: String): Double = member(name, "a number")

    fun positive(name: String): Double = number(name).also { if (it <= 0 || it.isInfinite()) fail("'$name' must be above 0, found $it") }

    fun integer(name: String): Int = wholeNumber(name, number(name))

    fun child(name: String): JsonObject = of(member<Any>(name, "an object"), "$source: '$name'")

    fun list(name: String): List<Any?> = member(name, "a list")

    fun children(name: String): List<JsonObject> = list(name).mapIndexed { index, value -> of(value, "$source: $name[$index]") }

    fun strings(name: String): List<String> = list(name).map { it as? String ?: fail("'$name' must be a list of strings") }

    fun numbers(name: String): List<Double> = list(name).map { it as? Double ?: fail("'$name' must be a list of numbers") }

    fun integers(name: String): List<Int> = numbers(name).map { wholeNumber(name, it) }

    /** Pairs of strings, such as limbs. */
    fun stringPairs(name: String): List<Pair<String, String>> = list(name).map { pair ->
        val ends = (pair as? List<*>)?.map { it as? String }
        if (ends == null || ends.size != 2 || ends.any { it == null }) fail("'$name' must be a list of pairs of strings")
        ends[0]!! to ends[1]!!
    }

    private fun wholeNumber(name: String, value: Double): Int {
        if (value != Math.rint(value) || Math.abs(value) > Int.MAX_VALUE) fail("'$name' must hold whole numbers, found $value")
        return value.toInt()
    }

    private inline fun <reified T> member(name: String, kind: String): T {
        if (!members.containsKey(name)) fail("'$name' is missing")
        return members[name] as? T ?: fail("'$name' must be $kind")
    }

    private fun fail(problem: String): Nothing = throw PoseException("$source: $problem")

    companion object {
        /** @throws PoseException when it is not JSON, or no object. */
        fun parse(text: String, source: String): JsonObject = of(parseJson(text, source), source)

        private fun of(value: Any?, source: String): JsonObject =
            JsonObject(value as? Map<*, *> ?: throw PoseException("$source must be a JSON object"), source)
    }
}
