"""The errors that a user's request and a trial can cause."""


class RequestError(Exception):
    """Something in the request is wrong: the experiment, the data, an address.

    The message is one line: what is wrong, where (file, key, picture), what would be right. A command prints it on
    standard error and ends with exit status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class TrialError(Exception):
    """A trial cannot be trained, or not to its end, with these hyperparameters; the message says why, in one line."""


class FullDiskError(Exception):
    """A file system is full; the message says which and what to do, in one line. No trial fails by it: it is run again."""
