"""Decodes pictures to grey pixels. No other code of the project decodes one.

A registered model carries a copy of this folder, so that it decodes as it did when it was evaluated, wherever it is loaded.
Therefore nothing else of the project is imported here, and the imports within the folder are relative.
"""

from .dicom import PREAMBLE, is_empty, pydicom_package
from .picture import FORMATS, MOST_PIXELS, RECIPE, Decoded, decode, square_of
from .unreadable import UnreadableError

__all__ = [
    "FORMATS",
    "MOST_PIXELS",
    "PREAMBLE",
    "RECIPE",
    "Decoded",
    "UnreadableError",
    "decode",
    "is_empty",
    "pydicom_package",
    "square_of",
]
