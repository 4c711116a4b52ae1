"""hf:DATASET: a data set of the Hugging Face Hub, a folder of data files, or a folder written by `save_to_disk`.

{name = "hf:openai/gsm8k", subset = "main", prompt_column = "question", chat = true}
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlzoo.config.task import TaskConfig
from rlzoo.errors import UserError, nearest
from rlzoo.tasks.registry import register_task
from rlzoo.tasks.rows import Survey
from rlzoo.tasks.table import TABLE_FIELDS, TableTask, column

if TYPE_CHECKING:
    from datasets import Dataset


class HuggingFace(TableTask):
    """Train on `train_split`; test on `test_split`, or on `test_fraction` of those rows, by a hash of the prompt."""

    kind = "hf"
    uses = TABLE_FIELDS | {"subset", "train_split", "test_split", "test_fraction"}

    @classmethod
    def from_config(cls, config: TaskConfig, argument: str) -> HuggingFace:
        if not argument:
            raise UserError("task 'hf': write hf:DATASET, for instance hf:openai/gsm8k")
        if config.test_split is not None and config.test_fraction is not None:
            raise UserError(f"task {config.name!r}: give test_split or test_fraction, not both")
        train = read_split(config, argument, config.train_split or "train")
        if config.test_fraction is None:
            return cls(config, train, read_split(config, argument, config.test_split or "test"))
        name = config.prompt_column or "prompt"
        seen = Survey()
        for i, row in enumerate(train):
            seen.add(column(row, name, "prompt_column", f"task {config.name!r}, row {i}"))
        held = seen.held_out(config.test_fraction)
        rows = {"train": train.select(np.flatnonzero(~held)), "test": train.select(np.flatnonzero(held))}
        return cls(config, rows["train"], rows["test"], {"train": seen.size[~held], "test": seen.size[held]})


def read_split(config: TaskConfig, source: str, split: str) -> Dataset:
    """One split, by name or, except after `save_to_disk`, in the slicing notation of `datasets` (`train[:1000]`).

    Raises:
        UserError: there is no such data set or split, or the Hub cannot be reached.
    """
    import datasets  # here, because it takes a second to import

    where = f"task {config.name!r}"
    folder = Path(source).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
            return _saved(datasets.load_from_disk(folder), config, split)
        return datasets.load_dataset(str(folder) if folder.is_dir() else source, name=config.subset, split=split)
    except UserError:
        raise
    except Exception as error:  # whatever the loader and its readers raise: an empty saved data set is an IndexError
        kind = type(error).__name__
        hint = "if the data set has other splits, set train_split, and test_split or test_fraction; it may be empty"
        raise UserError(f"{where}: cannot read split {split!r} of {source!r}: {kind}: {error} ({hint})") from error


def _saved(loaded: Dataset | dict[str, Dataset], config: TaskConfig, split: str) -> Dataset:
    """The split of what `save_to_disk` wrote; a single data set, without splits, is its training split."""
    where = f"task {config.name!r}"
    if config.subset is not None:
        raise UserError(f"{where}: subset does not apply to a folder written by save_to_disk")
    if not isinstance(loaded, dict):
        loaded = {"train": loaded}
    if split not in loaded:
        hint = nearest(split, loaded)
        raise UserError(f"{where}: no split {split!r}; set train_split, and test_split or test_fraction: {hint}")
    return loaded[split]


register_task(HuggingFace)
