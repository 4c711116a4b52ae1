"""The page of reproduced rows: numbers come from the run folders, and only with the row that they were run for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import reproduced
from rlzoo.config.published import Published
from rlzoo.errors import UserError
from rlzoo.experiments import reproduce
from tests.experiments.test_reproduce import small


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Published:
    made = small(
        reference=[
            {"step": 0, "metric": "length", "value": 4, "tolerance": 4},
            {"step": 2, "value": 7.0, "tolerance": 0.1},
        ]
    )
    monkeypatch.setattr(reproduce, "find", lambda name: made)
    monkeypatch.setattr(reproduced, "find", lambda name: made)
    return made


def test_the_page_has_every_number_and_its_outcome(row: Published, tmp_path: Path) -> None:
    made = reproduce.reproduce("mine", tmp_path / "mine")
    page = tmp_path / "page.md"
    reproduced.main([tmp_path / "mine"], page)
    text = page.read_text()
    assert f"| [mine](#mine) | {row.title} | 1 of 2 |" in text and (tmp_path / "page-mine.png").is_file()
    length, accuracy = (point.found for point in made.points)
    assert f"| 0 | length | 4 ± 4 | {length:.4g} | inside |" in text
    assert f"| 2 | accuracy | 7 ± 0.1 | {accuracy:.4g} | outside |" in text
    assert str(tmp_path) not in text and "- Differs: " in text
    stored = json.loads((tmp_path / "mine" / "reproduction.json").read_text())
    stored["points"][1]["value"] = 0.0
    (tmp_path / "mine" / "reproduction.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="compared with other reference numbers"):
        reproduced.read(tmp_path / "mine")
    with pytest.raises(UserError, match=r"holds no reproduction.json"):
        reproduced.read(tmp_path)
