"""The one exception that is a message to the user rather than a bug."""


class UserError(Exception):
    """A bad input: one sentence that says what is wrong and what to do next.

    The command line prints it without a traceback and exits with code 2.
    """
