"""Addresses without the passwords in them; apart from who opens them, for those who only print them."""

from __future__ import annotations

import re


def masked(text: str) -> str:
    """A text without the user and the password of the addresses in it, also where a password stands behind a `?`."""
    return re.sub(
        r"(?i)([?&]\w*(?:password|passwd|token|secret)=)[^&\s]*", r"\1***", re.sub(r"://\S*@", "://***@", text)
    )
