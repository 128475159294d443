"""Decodes pictures to grey pixels. No other code of the project decodes one.

A registered model carries a copy of this folder, so that it decodes as it did when it was evaluated, wherever it is loaded.
Therefore nothing else of the project is imported here, and the imports within the folder are relative.
"""

from .dicom import PREAMBLE, pydicom_package
from .picture import MOST_PIXELS, RECIPE, Decoded, decode, square_of
from .unreadable import UnreadableError

__all__ = ["MOST_PIXELS", "PREAMBLE", "RECIPE", "Decoded", "UnreadableError", "decode", "pydicom_package", "square_of"]
