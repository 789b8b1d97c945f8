package org.kpose.pose

/** Bad input, told in one line: what, where, the remedy. */
class PoseException(message: String, cause: Throwable? = null) : Exception(message, cause)
