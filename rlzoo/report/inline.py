"""A figure of matplotlib as an <svg> in the page: without what only a file needs, in colours of the style sheet.

    <g id="line-3"><path style="stroke: #0072b2"/></g>   ->   <g class="s a3 line"><path style="stroke: var(--p0)"/></g>

So the page has the light and the dark colours, hides a series by its class, and its script reads values off the lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rlzoo.report.chart import EDGE, INK, QUIET, RULE, STYLE, single
from rlzoo.report.lines import Frame, Line, finding, known
from rlzoo.report.palette import PALETTE, Look
from rlzoo.report.text import visible

COLOURS = {
    **{colour.lower(): f"var(--p{number})" for number, colour in enumerate(PALETTE)},
    **{INK: "var(--soft)", EDGE: "var(--quiet)", RULE: "var(--grid)", QUIET: "var(--quiet)"},
}
CLASSES = {"line": "s a{} line", "thin": "s a{} thin", "band": "s a{} band", "quiet": "quiet"}
KEY = (30, 10)
"""Width and height of the sample of a line, in points."""

_NUMBER = re.compile(r"-?\d+\.\d+")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_REFERENCE = re.compile(r"#(\w+)")


def chart(title: str, lines: Iterable[Line], frame: Frame, name: str, size: tuple[int, int]) -> Markup | None:
    """Return a chart as an <svg>; None where no line has a point.

    Args:
        title: begins what a screen reader says; the finding follows.
        name: of the chart, its own on the page.
        size: width and height in points.
    """
    drawn = known(list(lines))
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = single(drawn, frame, size)
        root = _parsed(figure)
    labels = {f"line-{line.look.number}": line.label for line in drawn if not line.thin}
    for group in root:
        if group.get("id") in labels:
            group.set("data-label", visible(labels[group.get("id", "")]))
    (ax,) = figure.axes
    left, bottom, width, height = ax.get_position().bounds
    box = (left * size[0], (1 - bottom - height) * size[1], width * size[0], height * size[1])
    values = {
        "class": "chart",
        "role": "img",
        "tabindex": "0",
        "aria-label": visible(finding(title, drawn, frame)),
        "viewBox": f"0 0 {size[0]} {size[1]}",
        "data-box": " ".join(f"{edge:.2f}" for edge in box),
        "data-x": f"{ax.get_xlim()[0]:.9g} {ax.get_xlim()[1]:.9g}",
        "data-y": f"{ax.get_ylim()[0]:.9g} {ax.get_ylim()[1]:.9g}",
        "data-scale": ax.get_xscale(),
        "data-forms": f"{frame.x_form} {frame.y_form}",
        "data-over": visible(frame.x_label),
    }
    return _svg(root, values, name)


def keys(look: Mapping[str, Look]) -> Markup:
    """Return a hidden <svg> with the sample of every algorithm's line, `key0` and so on, for `key` to show."""
    width, height = KEY
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        figure.patch.set_visible(False)
        for one in look.values():
            style = {**one.line, "linewidth": 2.0, "marker": one.marker, "markersize": 6, "markeredgewidth": 0}
            mark = Line2D([0, 0.5, 1], [0.5] * 3, markevery=[1], gid=f"line-{one.number}", **style)
            figure.add_artist(mark)
        root = _parsed(figure)
    made = ElementTree.Element("svg", {"class": "keys", "aria-hidden": "true", "width": "0", "height": "0"})
    for one in look.values():
        symbol = ElementTree.SubElement(made, "symbol", {"id": f"key{one.number}", "viewBox": f"0 0 {width} {height}"})
        symbol.extend(root.find(f"g[@id='line-{one.number}']") or ())
    return _svg(made, {}, "keys")


def key(one: Look) -> Markup:
    """Return the sample of an algorithm's line that stands in a legend or before its name in a table."""
    return Markup('<svg class="key" aria-hidden="true"><use href="#key{}"/></svg>').format(one.number)


def _parsed(figure: Figure) -> ElementTree.Element:
    """Draw a figure, and return its elements without namespaces, metadata and style sheet."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.text, element.tail = (part if (part or "").strip() else None for part in (element.text, element.tail))
    for child in list(root):
        if child.tag != "g":  # metadata, style sheet, and clips: nothing leaves its frame
            root.remove(child)
    _flatten(root)
    return root


def _flatten(element: ElementTree.Element) -> None:
    """Put what is in groups of no series into the place of the group."""
    children: list[ElementTree.Element] = []
    for child in element:
        _flatten(child)
        series = child.get("id", "").partition("-")[0] in CLASSES
        children += [child] if child.tag != "g" or series else list(child)
    element[:] = children


def _svg(root: ElementTree.Element, values: Mapping[str, str], name: str) -> Markup:
    """Return elements as markup: ids that are referred to become the chart's own, those of series classes."""
    if values:
        root.attrib = dict(values)
    for element in root.iter():
        if element is root or element.tag == "symbol":
            continue
        found = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        gid = found.pop("id", "")
        kind, _, number = gid.partition("-")
        if kind in CLASSES:
            found = {"class": CLASSES[kind].format(number), **found}
        elif gid:
            found["id"] = f"{name}-{gid}"
        found.pop("clip-path", None)
        if element.tag == "text":
            found = _text(found)
        elif "style" in found:
            found["style"] = _COLOUR.sub(lambda one: COLOURS.get(one[0], one[0]), found["style"])
        if "href" in found:
            found["href"] = _REFERENCE.sub(rf"#{name}-\1", found["href"])
        for path in ("d", "x", "y", "transform"):
            if path in found:
                found[path] = _NUMBER.sub(_short, " ".join(found[path].split()))
        element.attrib = found
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _text(found: Mapping[str, str]) -> dict[str, str]:
    """Return a text's place and alignment: the style sheet has its font and colour."""
    kept = {key: found[key] for key in ("x", "y", "transform") if key in found}
    anchor = re.search(r"text-anchor: (\w+)", found.get("style", ""))
    if "rotate(-0 " in kept.get("transform", ""):
        del kept["transform"]
    return kept | ({"text-anchor": anchor[1]} if anchor else {})


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
