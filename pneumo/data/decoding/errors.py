"""What a picture's content can be: broken."""


class UnreadableError(Exception):
    """A picture's content is broken; the message says how, without its name."""
