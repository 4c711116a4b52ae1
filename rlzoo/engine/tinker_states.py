"""Where a server of the Tinker API keeps a run: a file in the run's folder that names a state on the server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rlzoo.config.model import BackboneConfig
from rlzoo.errors import UserError

POINTER = "tinker.json"


@dataclass(frozen=True)
class Kept:
    """A state on the server: its path there, the model and the rank that it is of, the policy's version."""

    state: str
    model: str
    rank: int
    version: int
    url: str

    def write(self, folder: Path) -> None:
        """Write the file into a folder."""
        (folder / POINTER).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, config: BackboneConfig, complaint: str) -> Kept:
        """Read it. `complaint` begins the message of what goes wrong.

        Raises:
            UserError: there is none, or it is of another model or rank.
        """
        try:
            table = json.loads((folder / POINTER).read_text(encoding="utf-8"))
            kept = cls(**{name: kind(table[name]) for name, kind in FIELDS.items()})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{complaint} ({type(error).__name__}: {error}): a Tinker server goes on only from a state that "
                f"it keeps itself, which a {POINTER} names"
            ) from error
        ours = config.model, config.lora.r
        if (kept.model, kept.rank) != ours:
            raise UserError(
                f"{complaint}: its state is of {kept.model!r} with rank {kept.rank}, and the run has {ours[0]!r} with "
                f"rank {ours[1]}"
            )
        return kept


FIELDS = {"state": str, "model": str, "rank": int, "version": int, "url": str}
