"""Masking of passwords in addresses. This module imports no database client, so that a printing module can use it."""

from __future__ import annotations

import re


def mask_passwords(text: str) -> str:
    """Return a text with `***` for the user and password of each address in it, and for passwords in its query."""
    return re.sub(
        r"(?i)([?&]\w*(?:password|passwd|token|secret)=)[^&\s]*", r"\1***", re.sub(r"://\S*@", "://***@", text)
    )
