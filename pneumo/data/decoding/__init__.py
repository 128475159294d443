"""Encoded pictures to grey pixels: the only place in the project where a picture is decoded.

A registered model carries a copy of this folder, so that it decodes as when it was judged, wherever it is loaded: nothing
else of the project is imported here, and imports within are relative.
"""

from .dicom import PREAMBLE, pydicom_package
from .errors import UnreadableError
from .picture import MOST_PIXELS, RECIPE, Decoded, decode, square_of

__all__ = ["MOST_PIXELS", "PREAMBLE", "RECIPE", "Decoded", "UnreadableError", "decode", "pydicom_package", "square_of"]
