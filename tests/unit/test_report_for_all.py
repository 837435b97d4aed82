"""The report for people who see colours otherwise, or hear the page: contrast, words for plots."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest

from timetrial.tracking.report import plots
from timetrial.tracking.report.colors import contrast, distance
from timetrial.tracking.report.inline import in_words
from timetrial.tracking.report.plots import Line, Panel
from timetrial.tracking.report.style import looks

CARDS = {"light": ("#fbfbfa", "#ffffff"), "dark": ("#15171a", "#1c1f23")}
"""Backgrounds of the page and of its plots."""


@pytest.mark.parametrize("scheme", CARDS)
def test_lines_have_the_contrast_of_graphics_and_differ_from_the_target(scheme: str):
    """3:1, Web Content Accessibility Guidelines 2.1, success criterion 1.4.11."""
    ink = {"light": "#24272c", "dark": "#e6e8eb"}[scheme]
    for look in looks([f"optimizer {k}" for k in range(10)], {}).values():
        color = getattr(look, scheme)
        assert min(contrast(color, card) for card in CARDS[scheme]) >= 3.0
        assert distance(color, ink) > 0.07


def test_thirty_lines_all_differ_by_color_or_dashes():
    found = list(looks([f"optimizer {k:02}" for k in range(30)], {}).values())
    for one, other in itertools.combinations(found, 2):
        assert distance(one.light, other.light) > 0.085 or one.dashes != other.dashes
    assert all(look.dashes for look in found[10:])


def variables(scheme: str) -> dict[str, str]:
    """The colours of the page's style sheet in a colour scheme."""
    sheet = (Path(plots.__file__).parent / "page.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", sheet, re.S)[:2]
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", light))
    assert set(found) == set(re.findall(r"--(\w+): #", dark))
    return found if scheme == "light" else dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", dark))


@pytest.mark.parametrize("scheme", CARDS)
def test_text_has_the_contrast_of_text_on_every_background(scheme: str):
    """4.5:1, Web Content Accessibility Guidelines 2.1, success criterion 1.4.3."""
    colors = variables(scheme)
    assert (colors["page"], colors["card"]) == CARDS[scheme]
    for text in ("ink", "muted", "accent", "bad", "best"):
        for background in ("page", "card", "soft"):
            assert contrast(colors[text], colors[background]) >= 4.5, (text, background)


def test_a_plot_in_words_has_its_axes_and_last_values():
    x = np.arange(3.0)
    lines = [
        Line("adam", x, np.array([2.0, 1.0, 0.1234])),
        Line("velo", x, np.array([2.0, 0.5, math.nan])),
        Line("lost", x, np.full(3, math.nan)),
    ]
    panel = Panel("Validation", "steps", "loss (lower is better)", lines)
    assert in_words(panel, "Curves: Validation") == (
        "Curves: Validation. loss (lower is better) against steps. "
        "Last values: adam 0.123, velo 0.500."
    )
    assert in_words(dataclasses.replace(panel, lines=[]), "t").endswith("against steps. No lines.")
