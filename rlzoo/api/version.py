"""The version of the installed package."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version; `0+source` if the package is used without installation."""
    try:
        return metadata.version("rlzoo")
    except metadata.PackageNotFoundError:
        return "0+source"
