"""The report in a real browser, where there is one: one script runs, it fits a phone, is dark at night, and prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import pytest

from rlzoo.report.page import write_report
from tests.report.folders import write_study
from tests.report.test_page import ATTACKS, hostile

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")]


def browse(url: Path, *options: str) -> str:
    """Open a page without a window, and return what the browser prints."""
    always = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")
    words = [str(BROWSER), *always, *options, url.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


def test_no_attack_runs(tmp_path: Path) -> None:
    report = write_report(hostile(tmp_path / "all", " ".join(ATTACKS).replace("/", "\u2215")[:120]))
    assert "<title>pwned" not in browse(report, "--dump-dom")
    for number, attack in enumerate(ATTACKS[:5]):
        dom = browse(write_report(hostile(tmp_path / str(number), attack)), "--dump-dom")
        assert "<title>pwned" not in dom and not re.search(r"<(img|h1>pwned)", dom)
        assert dom.count("<script") == 1
        assert dom.count("pwned") + dom.count("alert(1)") > 10  # it is there, as text


def test_it_does_not_scroll_sideways_on_a_phone(tmp_path: Path) -> None:
    names = ("grpo", "dapo", "grpo[surrogate.high=0.28,surrogate.low=0.1]", "gspo", "ppo", "reinforce")
    report = write_report(write_study(tmp_path, names, responses=["a_long_word_without_a_space" * 20]))
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="{report.name}" width="390" height="800" onload="document.title = '
        'this.contentDocument.documentElement.scrollWidth"></iframe>'
    )
    dom = browse(frame, "--allow-file-access-from-files", "--dump-dom")
    assert int(re.findall(r"<title>(\d+)</title>", dom)[0]) <= 390


def test_it_is_dark_where_the_reader_wants_it(tmp_path: Path) -> None:
    report = write_report(write_study(tmp_path))
    for scheme, colour in ((1, (0xFF, 0xFF, 0xFF)), (0, (0x14, 0x17, 0x1C))):
        picture = tmp_path / f"{scheme}.png"
        browse(report, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}")
        corner = matplotlib.image.imread(picture)[2, 2, :3]
        assert tuple(round(255 * float(x)) for x in corner) == colour


def test_it_prints(tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    browse(write_report(write_study(tmp_path)), f"--print-to-pdf={printed}")
    assert printed.read_bytes().count(b"/Type /Page\n") >= 3


def test_a_click_on_a_heading_sorts_its_table(tmp_path: Path) -> None:
    """Rows come as grpo, dapo; `after` is higher for dapo. Descending at first, ascending at the next click."""
    report = write_report(write_study(tmp_path))
    orders = []
    for clicks in (1, 2):
        frame = tmp_path / f"frame{clicks}.html"
        frame.write_text(
            f'<iframe src="{report.name}" onload="const t = this.contentDocument.querySelector(\'table.results\');'
            f"for (let i = 0; i < {clicks}; i++) t.tHead.rows[0].cells[3].click();"
            "document.title = [...t.tBodies[0].rows].map((r) => r.cells[0].textContent).join(' ')\"></iframe>"
        )
        dom = browse(frame, "--allow-file-access-from-files", "--dump-dom")
        orders.append(re.findall(r"<title>(.*?)</title>", dom)[0])
    assert orders == ["dapo grpo", "grpo dapo"]
