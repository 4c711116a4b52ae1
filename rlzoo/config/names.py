"""Names that become folders: `OBJECTIVE/seedN`. They are validated once, here."""

from __future__ import annotations

import re

LONGEST = 200
"""Maximum bytes of a name: file systems allow 255, and a control or a suffix may follow."""
RESERVED = frozenset({"tune", "tables", "adapter", "critic"})
"""Folder names that a comparison or a run uses itself."""
_ALLOWED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@\-\[\]]*")


def folder_name(name: str) -> str:
    """Return the name if it is a valid folder name on every system.

    Raises:
        ValueError: another character than letters and digits of ASCII and `_ . , = + @ - [ ]`, one of these at the
            start (but `_`), too long, or the name of a folder that rlzoo makes itself.
    """
    if len(name) > LONGEST:
        raise ValueError(f"a name of {len(name)} characters is too long for a folder: at most {LONGEST}")
    if not _ALLOWED.fullmatch(name) or name.endswith("."):
        raise ValueError(
            f"{name!r} cannot be the name of a folder: use letters, digits and _ . , = + @ - [ ], and begin with a "
            "letter, a digit or _"
        )
    if name.lower() in RESERVED:
        raise ValueError(f"{name!r} is the name of a folder that rlzoo makes itself: choose another")
    return name
