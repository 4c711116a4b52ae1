"""One look per algorithm of a page: distinct colours that can be seen, and markers and dashes beside them."""

from __future__ import annotations

import itertools

import objectives
from rlzoo.report.palette import LOOKS, ON_BLACK, PALETTE, Look, looks


def luminance(colour: str) -> float:
    """Relative luminance of the sRGB standard, 0 black to 1 white."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_no_two_on_a_page_share_a_colour_while_there_is_one_left() -> None:
    """dapo and reinforce had the same blue beside each other, told apart by dashes alone."""
    assert looks(["reinforce", "dapo"])["dapo"].colour != looks(["reinforce", "dapo"])["reinforce"].colour
    names = objectives.names()
    for start in range(len(names)):
        some = [names[(start + 3 * i) % len(names)] for i in range(11)]
        shown = looks(some)
        assert len({look.colour for look in shown.values()}) == len(shown) == len(set(some))


def test_the_order_of_naming_changes_no_look() -> None:
    names = objectives.names()
    assert looks(reversed(names)) == looks(names)
    assert looks([f"{names[0]}[kl=none]", names[0]])[names[0]] == looks([names[0]])[names[0]]


def test_what_is_not_registered_takes_colours_that_nobody_beside_it_has() -> None:
    base = objectives.names()[0]
    ablations = [f"{base}[surrogate.high=0.{i}]" for i in range(2, 9)]
    shown = looks([*ablations, base])
    assert list(shown) == [*ablations, base]
    assert shown[base] == looks([base])[base]
    assert len({look.colour for look in shown.values()}) == 8
    many = looks([f"unknown{i}" for i in range(LOOKS)])
    assert len({(look.colour, look.dashes) for look in many.values()}) == LOOKS
    assert len(looks([f"unknown{i}" for i in range(LOOKS + 3)])) == LOOKS + 3


def test_neighbours_in_the_registry_differ_in_colour_and_marker() -> None:
    for a, b in itertools.pairwise(range(LOOKS)):
        assert Look(a).colour != Look(b).colour
        assert Look(a).marker != Look(b).marker


def test_lines_can_be_seen_on_their_background() -> None:
    """WCAG 2.2 (1.4.11) asks for 3 to 1 of graphics."""
    assert all(contrast(colour, "#FFFFFF") >= 3 for colour in PALETTE)
    assert all(contrast(colour, "#14171C") >= 4.5 for colour in ON_BLACK)
