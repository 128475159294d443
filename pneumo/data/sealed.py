"""The one road to the test pictures.

A search decodes none of them; it reads the bytes of one only where a picture of the training pool has the same digest, to
tell a copy from chance. The audit looks at all, without a model. Whoever has a model judge them opens the test set, and has
to put that on record.
"""

from __future__ import annotations

from dataclasses import replace

from pneumo.data.pictures import Source
from pneumo.spec.errors import RequestError


def open_sealed_test(source: Source) -> Source:
    """The source turned over: the test pictures can be read, those of the training pool are sealed.

    Raises `RequestError` where the source has no test pictures.
    """
    if not source.sealed:
        raise RequestError(
            f"{source.description}: has no test pictures; wants test/{source.classes[0]} and test/{source.classes[1]}"
        )
    return replace(source, pictures=source.sealed, sealed=source.pictures)
