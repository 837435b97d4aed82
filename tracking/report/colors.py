"""Contrast and distance of colours, also as seen with colour blindness.

Pure: from ``#rrggbb`` to numbers and colours.

Sources: Web Content Accessibility Guidelines 2.1, 2018, https://www.w3.org/TR/WCAG21/ (luminance
and contrast); Ottosson, A Perceptual Color Space for Image Processing, 2020,
https://bottosson.github.io/posts/oklab/ (OKLab); Machado, Oliveira and Fernandes, A
Physiologically-based Model for Simulation of Color Vision Deficiency, 2009,
https://doi.org/10.1109/TVCG.2009.113 (matrices of severity 1).
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_SIGHT: Final = np.array([
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],  # full colour vision
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
     [-0.003882, -0.048116, 1.051998]],  # protanopia
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
     [-0.011820, 0.042940, 0.968881]],  # deuteranopia
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
     [0.004733, 0.691367, 0.303900]],  # tritanopia
])  # fmt: skip
_CONES: Final = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                          [0.2119034982, 0.6806995451, 0.1073969566],
                          [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_OKLAB: Final = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                          [1.9779984951, -2.4285922050, 0.4505937099],
                          [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
_LUMINANCE: Final = np.array([0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, in [1, 21], as in the Web Content Accessibility Guidelines."""
    darker, lighter = sorted(float(_LUMINANCE @ _linear(color)) for color in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


def distance(one: str, other: str) -> float:
    """Distance of two colours in OKLab, the smallest over all kinds of colour vision.

    0 means that somebody sees one colour, 1 is about black against white. Lines below 0.05 are hard
    to tell apart.
    """
    return float(np.linalg.norm(_seen(one) - _seen(other), axis=1).min())


def mixed_with_white(color: str, share: float) -> str:
    """The colour with a share of white, in [0, 1]."""
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + share * (255 - part)):02x}" for part in parts)


@functools.lru_cache(maxsize=1024)
def _seen(color: str) -> Floats:
    """OKLab coordinates of a colour for each kind of colour vision: shape ``(4, 3)``."""
    seen = np.clip(_SIGHT @ _linear(color), 0.0, 1.0)
    found: Floats = np.cbrt(seen @ _CONES.T) @ _OKLAB.T
    return found


def _linear(color: str) -> Floats:
    """Linear red, green and blue in [0, 1]: shape ``(3,)``."""
    parts = np.array(list(bytes.fromhex(color[1:]))) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
