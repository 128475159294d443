"""The error of a picture that cannot be decoded."""


class UnreadableError(Exception):
    """A picture's content is broken. The message says how, without the picture's name."""
