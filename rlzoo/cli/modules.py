"""`--import MODULE`: a user's module, which may register objectives, parts and tasks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from rlzoo.errors import UserError


def import_module(name: str) -> ModuleType:
    """Import a module of the working folder or an installed one, by name or by the path of its file.

    Raises:
        UserError: it is not there, or fails while it is imported.
    """
    path = Path(name)
    if path.suffix == ".py":
        folder, module = str(path.parent.resolve()), path.stem
    else:
        folder, module = str(Path.cwd()), name
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a module of the user's raises
        raise UserError(f"--import {name}: {type(error).__name__}: {error}") from error
