"""The report in a real browser, where there is one: its script, a phone, a dark screen, paper, and while runs train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlzoo.report.page import write_report
from tests.report.browser import NAME, Browser
from tests.report.folders import write_run, write_study
from tests.report.test_page import ATTACKS, hostile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NAME is None, reason="there is no Chromium here")]

ROWS = "[...document.querySelectorAll('table.results tbody tr')].map((r) => r.cells[0].textContent.trim()).join(' ')"
CHART = "[...document.querySelectorAll('svg.chart')].find((one) => one.getBoundingClientRect().width)"
TIP = "[...document.querySelector('.tip').children].map((one) => one.textContent.trim())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


def test_no_attack_runs(browser: Browser, tmp_path: Path) -> None:
    every = hostile(tmp_path / "all", " ".join(ATTACKS).replace("/", "\u2215")[:120])
    assert browser.open(write_report(every)).run("document.title") != "pwned"
    for number, attack in enumerate(ATTACKS[:5]):
        page = browser.open(write_report(hostile(tmp_path / str(number), attack)))
        assert page.run("document.title") != "pwned"
        assert page.run("document.querySelectorAll('img, h1').length") == 1  # our own heading
        assert page.run("document.scripts.length") == 1
        text = page.run("document.body.textContent")
        assert text.count("pwned") + text.count("alert(1)") > 10  # it is there, as text


def test_it_does_not_scroll_sideways_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    names = ("grpo", "dapo", "grpo[surrogate.high=0.28,surrogate.low=0.1]", "gspo", "ppo", "reinforce")
    report = write_report(write_study(tmp_path, names, responses=["a_long_word_without_a_space" * 20]))
    assert browser.open(report, width=390).run("document.documentElement.scrollWidth") <= 390


def test_it_is_dark_where_the_reader_wants_it(browser: Browser, tmp_path: Path) -> None:
    report = write_report(write_study(tmp_path))
    for dark, ground, ink in ((False, (0xFF, 0xFF, 0xFF), "#0072B2"), (True, (0x14, 0x17, 0x1C), "#4DA3DC")):
        page = browser.open(report, dark=dark)
        corner = page.picture(tmp_path / f"{dark}.png")[2, 2, :3]
        assert tuple(round(255 * float(x)) for x in corner) == ground
        line = page.run("getComputedStyle(document.querySelector('svg.chart .a0.line path')).stroke")
        assert line == f"rgb{tuple(int(ink[i : i + 2], 16) for i in (1, 3, 5))}"


def test_it_prints_with_every_axis_and_every_detail(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(write_report(write_study(tmp_path)))
    assert page.printed().count(b"/Type /Page\n") >= 3
    page.ask("Emulation.setEmulatedMedia", media="print")
    shown = "[...document.querySelectorAll('.one figure')].filter((one) => one.getBoundingClientRect().height).length"
    assert page.run(shown) == 6
    assert page.run("document.querySelector('.curve').getBoundingClientRect().height") > 0


def test_a_click_on_a_heading_sorts_its_table(browser: Browser, tmp_path: Path) -> None:
    """Rows come as grpo, dapo; `after` is higher for dapo. Descending at first, ascending at the next click."""
    page = browser.open(write_report(write_study(tmp_path)))
    head = "document.querySelector('table.results').tHead.rows[0].cells[3]"
    orders = []
    for _ in range(2):
        page.run(f"{head}.click()")
        orders.append((page.run(ROWS), page.run(f"{head}.getAttribute('aria-sort')")))
    assert orders == [("dapo grpo", "descending"), ("grpo dapo", "ascending")]


def test_the_values_under_the_pointer_are_those_of_the_records(browser: Browser, tmp_path: Path) -> None:
    """At step 2 grpo has 0.40, 0.41 and 0.42, dapo 0.45 to 0.47; between steps 2 and 4 lines are straight."""
    page = browser.open(write_report(write_study(tmp_path)))
    page.run(f"{CHART}.scrollIntoView({{block: 'center'}})")
    left, top, width, height = page.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])({CHART}.getBoundingClientRect())"
    )
    page.point(left + 0.53 * width, top + 0.5 * height)
    page.until("!document.querySelector('.tip').hidden")
    assert page.run(TIP) == ["training steps: 2", "dapo 46.0%", "grpo 41.0%"]
    page.run("document.querySelector('#show1').click()")  # dapo's lines go, and its values with them
    page.point(left + 0.54 * width, top + 0.5 * height)
    page.until(f"{TIP}.length === 2")
    page.run(f"{CHART}.focus()")
    page.press("ArrowRight")
    page.until(f"{TIP}[0] === 'training steps: 4'")
    assert page.run(TIP)[1] == "grpo 61.0%"
    page.press("Escape")
    assert page.run("document.querySelector('.tip').hidden")


def test_the_reader_chooses_the_axis(browser: Browser, tmp_path: Path) -> None:
    page = browser.open(write_report(write_study(tmp_path)))
    assert page.run(f"{CHART}.dataset.over") == "training steps"
    page.run("document.querySelector('#axis-tokens_sampled').click()")
    assert page.run(f"{CHART}.dataset.over") == "sampled tokens" and page.run(f"{CHART}.dataset.scale") == "log"


def test_a_page_follows_the_runs_without_loading_itself_again(browser: Browser, tmp_path: Path) -> None:
    """The numbers change under the reader; place, opened details, sorted table and switches stay as they were."""
    write_run(tmp_path, "grpo", 0, (0.25, 0.5), state=None, steps=4)
    write_run(tmp_path, "dapo", 0, (0.25, 0.6), steps=4)
    report = write_report(tmp_path, live=True)
    page = browser.open(report, height=500)
    page.run("window.mark = 'the same document'")
    page.run("document.querySelector('#show0').click()")
    page.run("document.querySelector('#axis-updates').click()")
    page.run("document.querySelector('table.results').tHead.rows[0].cells[3].click()")
    for part, state in (("responses", "false"), ("settings", "true")):
        page.run(f"document.querySelector('#{part} details').open = {state}")
    page.run("document.querySelector('#responses').scrollIntoView({behavior: 'instant'})")
    place = "document.querySelector('#responses').getBoundingClientRect().top"
    before = page.run(place)
    assert "75% of the steps are done" in page.run("document.querySelector('.banner').textContent")

    for name in ("metrics.jsonl", "samples.jsonl", "config.json", "environment.json"):
        (tmp_path / "grpo" / "seed0" / name).unlink()
    (tmp_path / "grpo" / "seed0").rmdir()
    write_run(tmp_path, "grpo", 0, (0.25, 0.5, 0.9), steps=4)
    write_report(tmp_path, live=True)
    page.until("document.querySelector('.banner')?.textContent.includes('100%') || !document.querySelector('.banner')")
    assert page.run("window.mark") == "the same document"
    assert "90.0" in page.run("document.querySelector('table.results').textContent")
    assert page.run(ROWS) == "grpo dapo"  # sorted by the new numbers
    assert not page.run("document.querySelector('#show0').checked") and page.run(
        "document.querySelector('#axis-updates').checked"
    )
    assert page.run("document.querySelector('#settings details').open") and not page.run(
        "document.querySelector('#responses details').open"
    )
    assert abs(page.run(place) - before) < 2

    write_report(tmp_path)  # the last version, which does not follow any more
    page.until("!('live' in document.body.dataset)")
    page.until("document.querySelectorAll('iframe').length === 0")
