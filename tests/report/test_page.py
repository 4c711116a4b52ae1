"""The report as a file: what stands on it, that it loads nothing, and that no text of others becomes a part of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import rlzoo.report.live as live
from rlzoo.config.comparison import CompareConfig
from rlzoo.errors import UserError
from rlzoo.report.charts import METRICS
from rlzoo.report.live import LiveReport
from rlzoo.report.page import write_report, write_tables
from rlzoo.report.read import read_study
from rlzoo.report.results import curve_values
from rlzoo.store.run_folder import REPORT
from tests.report.folders import edit_json, write_plan, write_run, write_study

ATTACKS = [
    "<script>document.title='pwned'</script>",
    "</script><script>document.title='pwned'</script>",
    "\"><img src=x onerror=\"document.title='pwned'\">",
    "'><svg onload=alert(1)>",
    "</style></title></pre></table><h1>pwned</h1>",
    "<!--", "-->", "]]>", "<![CDATA[", "<?xml", "&lt;b&gt;", "&#60;b&#62;",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "\u2028\u2029</script>",
    "\u202egnp.exe\x00\x1b[2J",
    "javascript:alert(1)",
]  # fmt: skip


NAMESPACE = "http://www.w3.org/2000/svg"  # the script names it, and loads nothing from there
ADDRESSES = r"(data:(application/json|text/csv);base64,|#)"


class Page(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(sorted(name for name, _ in attrs))))
        self.values += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def hostile(folder: Path, text: str) -> Path:
    """A comparison in which every text that a stranger may write is the attack; one of its runs failed."""
    name = text.replace("/", "\u2215").replace("\x00", "")  # also a folder's name
    for row in ("grpo", name):
        for seed in (0, 1):
            write_run(folder, "grpo", seed, row=row, task=text, prompt=text, answer=text, responses=[text] * 3)
    path = folder / name / "seed1"
    edit_json(path / "summary.json", state="failed", failure=text)
    edit_json(path / "environment.json", **{text: text, "cpu": text, "command": [text, text]})
    edit_json(path / "config.json", objective={"name": text, "surrogate": {"kind": text, text: text}})
    edit_json(folder / "grpo" / "seed0" / "environment.json", command=[text, text])
    return folder


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(hostile(tmp_path_factory.mktemp("harmless"), "harmless")))


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_of_others_becomes_a_part_of_the_page(tmp_path: Path, attack: str, harmless: Page) -> None:
    attacked = Page(write_report(hostile(tmp_path / "b", attack)))
    assert attacked.elements == harmless.elements
    for tag, name, value in attacked.values:
        assert not name.startswith("on")
        assert name not in ("src", "srcset") and (name != "href" or re.match(ADDRESSES, value))
        assert tag not in ("img", "iframe", "object", "embed", "link", "base", "form")
    printable = re.sub(r"[\x00\x1b\u2028\u2029\u202e]", lambda m: f"⟨U+{ord(m[0]):04X}⟩", attack)
    assert attacked.text.count(" ".join(printable.split())) > 10


def test_the_page_runs_one_script_and_loads_nothing(tmp_path: Path) -> None:
    path = write_report(write_study(tmp_path))
    page = Page(path)
    (policy,) = [value for tag, name, value in page.values if tag == "meta" and value.startswith("default-src")]
    (script,) = re.findall(r"<script>(.*?)</script>", path.read_text(), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert not re.search(r"https?://|url\(|@import|javascript:", path.read_text().replace(NAMESPACE, ""))


def test_the_verdict_comes_first_then_tables_curves_and_the_rest(tmp_path: Path) -> None:
    text = Page(write_report(write_study(tmp_path, seeds=6))).text
    order = [
        *("Verdict", "dapo is better than grpo: 67.5%.", "Outcome and cost", "Accuracy at equal cost"),
        *("Learning curves", "Pairs", "Probability of improvement", "Diagnostics of training"),
        *("Entropy and length at matched reward", "Responses to the same prompts", "Algorithms", "clip (low 0.2"),
        *("GRPO: the group is the baseline", "Settings", "Repeat it", "rlzoo compare grpo 'a b'"),
    ]
    places = [text.find(words) for words in order]
    assert -1 not in places and places == sorted(places)
    # after: 0.60 to 0.65, all from 0.25. Seeds alone: t(5) * 0.0187 / sqrt(6) = 0.0196; 400 problems alone:
    # 1.96 * sqrt(0.625 * 0.375 / 400) = 0.047; together 0.050. 4 steps of 100 tokens, 4 updates each.
    row = re.search(r"grpo 6 25\.0 62\.5 ± 5\.0 \+37\.5 ± 5\.0 .*? 60\.0 0\.0 10\.0 14\.0 16 400 400 0:02", text)
    assert row is not None
    assert "Not finished" not in text


def test_the_saved_configuration_is_the_comparison(tmp_path: Path) -> None:
    page = Page(write_report(write_study(tmp_path, seeds=2)))
    (link,) = [value for _, name, value in page.values if name == "href" and "json" in value]
    config = CompareConfig.model_validate(json.loads(base64.b64decode(link.partition(",")[2])))
    assert [run.name for run in config.runs()] == ["grpo/seed0", "grpo/seed1", "dapo/seed0", "dapo/seed1"]


def test_a_comparison_that_runs_says_so_and_how_far_it_is(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0)
    write_run(tmp_path, "dapo", 0, (0.25, 0.5), state=None, steps=4)
    text = Page(write_report(tmp_path)).text
    assert "Not finished: 75% of the steps are done. 1 of 2 runs have ended." in text
    assert "grpo: mean held-out accuracy 75.0% (1 seed)." in text


def test_a_comparison_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    for name in ("grpo", "dapo"):
        path = write_run(tmp_path, name, 0, (0.25,), state=None, steps=4)
        (path / "metrics.jsonl").unlink()
        (path / "samples.jsonl").unlink()
    text = Page(write_report(tmp_path)).text
    assert "0% of the steps are done" in text and "No run has been evaluated yet." in text
    with pytest.raises(UserError, match=r"no run in .* has ended yet"):
        write_tables(tmp_path, tmp_path / "tables")


def test_a_run_by_itself(tmp_path: Path) -> None:
    run = write_run(tmp_path, "ppo", 5)
    text = Page(write_report(run, tmp_path / "new" / "one.html")).text
    assert "1 algorithm, 1 seed on add:medium" in text and "rlzoo train --config config.json" in text
    assert (tmp_path / "new" / "one.html").exists() and not (run / REPORT).exists()


def test_failures_and_collapses_are_told(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=2)
    write_run(tmp_path, "grpo", 2, (0.25, 0.1), state="failed", failure="step 3: loss nan")
    text = Page(write_report(tmp_path)).text
    assert "grpo with seed 2 failed: step 3: loss nan." in text
    assert "3 (1 failed)" in text and "Collapsed: grpo on 33% of its seeds." in text


def test_controls_are_explained_and_pass_at_k_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0)
    path = write_run(tmp_path, "grpo", 0, row="grpo+frozen")
    edit_json(path / "config.json", control="frozen")
    edit_json(path / "summary.json", objective="grpo+frozen")
    for run in (path, tmp_path / "grpo/seed0"):
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for record in records:
            if record["kind"] == "test":
                record["pass@4"] = 0.875
        (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    page = Page(write_report(tmp_path))
    assert "Controls: +frozen is never updated." in page.text and "pass@4 after % " in page.text
    assert "75.0 0.0 87.5 87.5 10.0" in page.text  # worst, collapsed, pass@4 before and after, length before
    (link,) = [value for _, name, value in page.values if name == "href" and "json" in value]
    config = CompareConfig.model_validate(json.loads(base64.b64decode(link.partition(",")[2])))
    assert [run.name for run in config.runs()] == ["grpo/seed0", "grpo+frozen/seed0"]


def test_an_objective_that_is_not_registered_here_has_no_page(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, row="mine", objective={"name": "mine"})
    assert "This objective was not registered where the report was made" in Page(write_report(tmp_path)).text


def test_an_ablation_has_its_contrasts(tmp_path: Path) -> None:
    write_study(tmp_path, seeds=2)
    config = CompareConfig.model_validate({"objectives": ["grpo", "dapo"], "seeds": 2})
    (tmp_path / "comparison.json").write_text(config.model_dump_json())
    contrast = {"block": "ladder", "label": "select=mixed", "verdict": "better"}
    difference = {"mean": 0.05, "low": 0.01, "high": 0.09, "n": 2}
    outcome = {"rows": [], "runs": [], "ablation": [{**contrast, "difference": difference}]}
    (tmp_path / "summary.json").write_text(json.dumps(outcome))
    text = Page(write_report(tmp_path)).text
    assert "What each part is worth" in text and "ladder select=mixed +5.0 ± 4.0 better" in text


def test_tables_are_written_in_every_format(tmp_path: Path) -> None:
    paths = write_tables(write_study(tmp_path), tmp_path / "tables")
    assert [path.name for path in paths] == [
        f"{name}.{suffix}" for name in ("results", "pairs", "equal_cost", "curve") for suffix in ("md", "csv", "tex")
    ]
    assert (tmp_path / "tables" / "pairs.csv").read_text().splitlines()[1].startswith("dapo,grpo,")


def test_a_live_report_takes_at_most_its_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written at second 30; that takes 2 s, so the next is due 200 s after its end."""
    now, written, heard = [0.0], [], []

    def write(folder: Path, live: bool) -> None:
        written.append((now[0], folder, live))
        now[0] += 2

    monkeypatch.setattr(live, "write_report", write)
    report = LiveReport(tmp_path, lambda run, record: heard.append(run), clock=lambda: now[0])
    for second in (0.0, 29.9, 30.0, 40.0, 231.9, 232.0):
        now[0] = max(now[0], second)
        report("grpo/seed0", {"kind": "train"})
    assert written == [(30.0, tmp_path, True), (232.0, tmp_path, True)]
    assert len(heard) == 6


def test_a_live_page_may_frame_its_own_later_version_and_nothing_else(tmp_path: Path) -> None:
    write_study(tmp_path)
    page = Page(write_report(tmp_path, live=True))
    (policy,) = [value for tag, name, value in page.values if tag == "meta" and value.startswith("default-src")]
    assert "; frame-src 'self' file:; base-uri" in policy and ("body", "data-live", "") in page.values
    done = Page(write_report(tmp_path))
    assert "frame-src" not in "".join(value for *_, value in done.values) and "refresh" not in str(page.values)
    assert ("body", "data-live", "") not in done.values


def test_tables_have_captions_headings_with_scopes_and_a_file(tmp_path: Path) -> None:
    page = Page(write_report(write_study(tmp_path, seeds=6)))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("caption") == tags.count("table") >= 9
    assert all("scope" in names for tag, names in page.elements if tag == "th")
    files = {value for _, name, value in page.values if name == "download"}
    assert files == {"results.csv", "equal_cost.csv", "curve.csv", "pairs.csv", "comparison.json"}


def test_a_curve_s_numbers_are_means_over_the_seeds_evaluated_there(tmp_path: Path) -> None:
    write_run(tmp_path, "grpo", 0, (0.2, 0.4, 0.8))
    write_run(tmp_path, "grpo", 1, (0.2, 0.6), state=None, steps=4)
    write_run(tmp_path, "dapo", 0, (0.3,), state=None, steps=4)
    table = curve_values(read_study(tmp_path, METRICS))
    rows = [[(row[name].mean, row[name].n) if row[name] else None for name in ("grpo", "dapo")] for row in table.rows]
    assert [row["step"] for row in table.rows] == [0, 2, 4]
    assert rows == [[(0.2, 2), (0.3, 1)], [(0.5, 2), None], [(0.8, 1), None]]


def test_the_axis_is_the_plan_s_own_at_first(tmp_path: Path) -> None:
    for budget, axis in ((None, "step"), ("tokens=1k", "tokens_sampled")):
        folder = tmp_path / axis
        write_plan(folder, ("grpo", "dapo"), 1, train={"steps": 4, "budget": budget})
        for name in ("grpo", "dapo"):
            write_run(folder, name)
        text = write_report(folder).read_text()
        assert re.findall(r'id="(axis-\w+)" checked', text) == [f"axis-{axis}"]
        assert text.count('type="radio"') == 6
