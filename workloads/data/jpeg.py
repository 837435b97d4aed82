"""JPEG files: decoded to RGB, and made of the few that are no RGB JPEG.

Boundary: bytes in, bytes or arrays out; no file is read or written.
"""

from __future__ import annotations

import io
import warnings
from typing import Any, Final

MAX_PIXELS: Final = 100_000_000
"""Most pixels of an image; ImageNet's largest has a third of them."""


def rgb_jpeg(data: bytes) -> bytes:
    """The image as an RGB or grey JPEG: as it is, but for one PNG and 22 CMYK images.

    Those are encoded anew with quality 100, as by TFDS.

    Raises:
        ValueError: this is no image.
    """
    import simplejpeg
    from PIL import Image

    if data[:2] == b"\xff\xd8":
        colours = simplejpeg.decode_jpeg_header(data)[2]
        if colours not in ("CMYK", "YCCK"):
            return data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                file = io.BytesIO()
                image.convert("RGB").save(file, "JPEG", quality=100, subsampling=0)
    except Exception as error:  # its decoders share no class
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return file.getvalue()


def decoded(data: bytes) -> Any:
    """Pixels (H, W, 3) uint8 of a JPEG; not turned by its EXIF tag.

    Raises:
        ValueError: the image is damaged.
    """
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    if height * width > MAX_PIXELS:
        raise ValueError(f"expected at most {MAX_PIXELS:,} pixels, found {height} x {width}")
    return simplejpeg.decode_jpeg(data, colorspace="RGB")
