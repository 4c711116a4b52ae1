"""The one exception that means "you can fix this": its message says what was wrong, where, and what to do."""

from __future__ import annotations

from advantages.names import nearest

__all__ = ["UserError", "nearest"]


class UserError(ValueError):
    """Bad input from a user, caught once at the edge. The command line prints the message without a traceback."""
