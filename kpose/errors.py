"""The error for bad input from outside."""


class KposeError(ValueError):
    """Input that kpose refuses: a file, a setting, an annotation.

    The message is one line that names what is wrong, where, and the remedy. The command line prints it without a traceback.
    """
