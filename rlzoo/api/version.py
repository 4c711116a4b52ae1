"""The version of the package that is installed."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Return the installed version; `0+source` where the sources are used without being installed."""
    try:
        return metadata.version("rlzoo")
    except metadata.PackageNotFoundError:
        return "0+source"
