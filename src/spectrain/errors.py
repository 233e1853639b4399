"""The one error and the one warning that are meant for people.

Every message is a whole sentence: what was given, what is allowed, what to do. The command line prints an `InputError`
without a traceback and exits with code 2; everything else is a bug and keeps its traceback.
"""


class InputError(ValueError):
    """Something a person gave (an argument, a key, a file) cannot be used; the message says why and what to do."""


class SpectrainWarning(UserWarning):
    """Something was adjusted or has no effect; the run goes on."""
