"""Showing a label map to people: in colours, over its picture, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from enet_tvm.errors import UserError
from enet_tvm.runtime.pictures import Channels, require_channels, rgb_pixels

Colour = tuple[int, int, int]


def colourise(labels: NDArray[np.uint8], palette: Sequence[Colour]) -> NDArray[np.uint8]:
    """Return a label map (H x W uint8) in its classes' colours, H x W x 3 uint8; labels without a colour are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def overlay(
    picture: Image.Image | NDArray[np.uint8],
    labels: NDArray[np.uint8],
    palette: Sequence[Colour],
    opacity: float = 0.5,
    classes: Sequence[str] | None = None,
    *,
    channels: Channels = "rgb",
) -> Image.Image:
    """Lay the classes' colours over a picture, with a thin line of full colour around every segment.

    Parameters
    ----------
    picture : PIL.Image.Image or ndarray
        RGB image, or H x W x 3 uint8 array.
    labels : ndarray
        H x W uint8 class numbers, of the picture's size.
    palette : sequence of (int, int, int)
        RGB colour of each class.
    opacity : float
        Opacity of the colours: 0 shows the picture, 1 the colours only.
    classes : sequence of str or None
        Names for a legend of the classes that occur, largest first; None for no legend. There is none either on
        pictures too small for it.
    channels : {"rgb", "bgr"}
        Order of an array's channels; OpenCV's are ``"bgr"``. The result is RGB whatever it was.

    Returns
    -------
    PIL.Image.Image
        RGB image of the picture's size.

    Raises
    ------
    UserError
        When the sizes differ, the opacity is not between 0 and 1, or `channels` does not fit the picture.
    """
    check_opacity(opacity)
    require_channels(picture, channels)
    pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.shape != (*labels.shape, 3):
        raise UserError(f"labels of shape {labels.shape} do not fit a picture of shape {pixels.shape}; resize one of them")
    pixels = rgb_pixels(pixels, channels)
    colours = colourise(labels, palette)
    # Fixed-point blending: 8 bits of fraction are finer than a grey level.
    weight = round(opacity * 256)
    blended = ((pixels.astype(np.uint16) * (256 - weight) + colours.astype(np.uint16) * weight) >> 8).astype(np.uint8)
    if opacity > 0:
        edge = boundaries(labels, thickness=max(1, round(min(labels.shape) / 400)))
        blended[edge] = colours[edge]
    image = Image.fromarray(blended)
    if classes is not None:
        _draw_legend(image, labels, palette, classes)
    return image


def check_opacity(opacity: float) -> None:
    """Raise UserError unless the opacity is between 0 and 1."""
    if not 0 <= opacity <= 1:
        raise UserError(f"opacity {opacity:g} is not between 0 and 1; give such as 0.5")


def boundaries(labels: NDArray[np.uint8], thickness: int = 1) -> NDArray[np.bool_]:
    """Return where, within `thickness` pixels to the right or below, another segment begins: H x W bool."""
    edge = np.zeros(labels.shape, bool)
    for step in range(1, thickness + 1):
        edge[:, :-step] |= labels[:, :-step] != labels[:, step:]
        edge[:-step] |= labels[:-step] != labels[step:]
    return edge


def _draw_legend(image: Image.Image, labels: NDArray[np.uint8], palette: Sequence[Colour], classes: Sequence[str]) -> None:
    areas = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)]
    present = [int(label) for label in np.argsort(-areas, kind="stable") if areas[label]]
    size = max(10, round(image.height / 34))
    font = ImageFont.load_default(size)
    line, gap = round(size * 1.4), round(size * 0.6)
    texts = [f"{classes[label]}  {_percent(areas[label] / labels.size)}" for label in present]
    if not texts:
        return
    width = 3 * gap + size + round(max(font.getlength(text) for text in texts))
    fitting = (image.height - 4 * gap) // line
    if fitting < 2 or width + 2 * gap > image.width * 0.6:
        return
    texts = texts[:fitting]
    height = len(texts) * line + gap
    left, top = gap, image.height - gap - height
    panel = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(panel)
    draw.rounded_rectangle((left, top, left + width, top + height), radius=gap, fill=(16, 18, 24, 190))
    for row, (label, text) in enumerate(zip(present, texts, strict=False)):
        y = top + gap // 2 + row * line
        square = y + (line - size) // 2
        draw.rectangle(
            (left + gap, square, left + gap + size, square + size), fill=tuple(palette[label]), outline=(255, 255, 255, 90)
        )
        draw.text((left + 2 * gap + size, y + line / 2), text, font=font, fill=(255, 255, 255, 255), anchor="lm")
    image.paste(Image.alpha_composite(image.convert("RGBA"), panel).convert("RGB"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %"
