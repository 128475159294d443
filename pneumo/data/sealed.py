"""The only way to the sealed test pictures.

A search decodes no test picture. It reads the bytes of one only if a picture of the training pool has the same digest, to
tell a copy from a coincidence. The audit looks at all of them, without a model. Evaluating a model on them opens the test
set, which the caller has to record.
"""

from __future__ import annotations

from dataclasses import replace

from pneumo.data.pictures import Source
from pneumo.spec.errors import RequestError


def open_sealed_test(source: Source) -> Source:
    """Return the source with the test pictures readable and the training pool sealed.

    Raises `RequestError` if the source has no test pictures.
    """
    if not source.sealed:
        negative, positive = source.classes
        raise RequestError(
            f"{source.description}: has no test pictures; expected folders test/{negative} and test/{positive}"
        )
    return replace(source, pictures=source.sealed, sealed=source.pictures)
