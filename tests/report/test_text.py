"""What cannot be seen is made visible, and everything else stays."""

from __future__ import annotations

import pytest

from rlzoo.report.text import visible


@pytest.mark.parametrize("text", ["", "2 + 2 = 4", "<b>&\"'", "größer, 数, ∑, 👩‍🔬", "a\n\tb", "می‌خواهم"])
def test_readable_text_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("\x00", "0000"),
        ("\x1b[31m", "001B"),
        ("\r", "000D"),
        ("\x85", "0085"),
        ("\u202e", "202E"),
        ("\u2028", "2028"),
        ("\u2029", "2029"),
        ("\u200b", "200B"),
        ("\ufeff", "FEFF"),
        ("\ud800", "D800"),
    ],
)
def test_controls_separators_and_halves_become_codes(text: str, code: str) -> None:
    shown = visible(f"a{text}z")
    assert shown == f"a⟨U+{code}⟩{text[1:]}z"
    assert shown.encode()
