"""Diagnostics out of bounds are said, and so is what else differs between two rows."""

from __future__ import annotations

import json
from pathlib import Path

from rlzoo.report.charts import METRICS
from rlzoo.report.read import read_study
from rlzoo.report.remarks import confounded, out_of_bounds
from tests.report.folders import write_study


def told(folder: Path, **metrics: float) -> list[str]:
    """The remarks on runs of grpo with these metrics at every step."""
    for path in folder.glob("grpo/*/metrics.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [record | metrics if record["kind"] == "train" else record for record in records]
        path.write_text("".join(json.dumps(record) + "\n" for record in changed))
    return out_of_bounds(read_study(folder, METRICS))


def test_what_is_out_of_bounds_is_said_with_its_row(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=2)
    assert told(tmp_path) == []
    assert told(tmp_path, clip_fraction=0.29, explained_variance=0.1, ess=0.5, entropy=0.3, silent_groups=0.2) == []
    assert told(tmp_path, clip_fraction=0.5) == ["grpo: 50% of tokens are clipped: the clip does not fit this setting."]
    lines = told(tmp_path, clip_fraction=0.0, explained_variance=-7.0, ess=0.01, entropy=0.001, silent_groups=1.0)
    assert lines == [
        "grpo: the critic explains -7 of the variance: it is worse than a constant.",
        "grpo: the ratios leave an effective sample of 1%.",
        "grpo: the entropy is 0.001 nats per token: samples hardly vary.",
        "grpo: 100% of groups are silent: hardly any response gives a gradient.",
    ]


def test_rows_that_differ_in_several_columns_are_said(tmp_path: Path) -> None:
    write_study(tmp_path, ("grpo", "gspo"), 2)
    (line,) = confounded(read_study(tmp_path, METRICS))
    assert line.startswith("grpo and gspo differ in ") and "ratio" in line and "surrogate" in line and "kl" in line
    write_study(tmp_path / "one", ("grpo", "grpo[kl=none]"), 2)
    # Names are folders here and the stored rows are equal but for their name, so nothing differs.
    assert confounded(read_study(tmp_path / "one", METRICS)) == []
