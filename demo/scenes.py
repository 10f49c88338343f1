"""Drawn scenes for trying the page; the position of every head is known."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SKIN = ((236, 205, 180), (205, 160, 125), (150, 105, 75), (95, 65, 48))
HAIR = ((30, 25, 22), (22, 20, 20), (40, 30, 25), (52, 40, 32), (60, 60, 62))
LEGS = (45, 45, 55)
FINER = 2  # drawn at this multiple of the size: shrinking smooths the edges
TRIES = 30  # to find a place that no other head hides

Colour = tuple[int, ...]


def draw_scene(
    people: int = 400, size: tuple[int, int] = (960, 640), seed: int = 0
) -> tuple[Image.Image, NDArray[np.float32]]:
    """Draw people on a square, small at the back and large in front; few heads are hidden.

    Args:
        people: number of people.
        size: width and height in pixels.
        seed: the same seed draws the same scene.

    Returns:
        The picture and its heads (people, 2), x, y in pixels, from back to front.
    """
    width, height = size[0] * FINER, size[1] * FINER
    rng = np.random.default_rng(seed)
    horizon = 0.22 * height
    picture = Image.new("RGB", (width, height), (196, 208, 219))
    pen = ImageDraw.Draw(picture)
    for left in np.linspace(0, width, 9)[:-1]:  # houses at the back
        roof = horizon * rng.uniform(0.2, 0.7)
        shade = int(rng.integers(120, 175))
        pen.rectangle((left, roof, left + width / 8, horizon), fill=(shade, shade - 10, shade - 22))
    pen.rectangle((0, horizon, width, height), fill=(126, 122, 115))
    far = np.sort(rng.beta(1.1, 2.0, people))  # most stand at the back
    radius = height * (0.010 + 0.018 * far)
    heads = np.stack([far, horizon + radius + far * (height - horizon - 5 * radius)], axis=1)
    for i, (r, y) in enumerate(zip(radius, heads[:, 1])):
        places = rng.uniform(r, max(width - r, r + 1), TRIES)
        heads[i, 0] = _freest(places, y, r, heads[:i], radius[:i])
        _person(pen, heads[i, 0], y, r, rng)
    picture = picture.resize(size, Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(0.5))
    noise = rng.normal(0, 5, (size[1], size[0], 1))
    grainy = np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(grainy), (heads / FINER).astype(np.float32)


def _freest(
    places: NDArray[np.float64],
    y: float,
    radius: float,
    heads: NDArray[np.float64],
    radii: NDArray[np.float64],
) -> float:
    """The first place where a head touches no other, else the one farthest from all others."""
    apart = np.hypot(places[:, None] - heads[:, 0], y - heads[:, 1]) / (radii + radius)
    nearest = apart.min(axis=1, initial=np.inf)
    free = np.flatnonzero(nearest > 1)
    return float(places[free[0] if len(free) else nearest.argmax()])


def _person(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, rng: np.random.Generator
) -> None:
    hue = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.5), rng.uniform(0.25, 0.95))
    clothes = tuple(int(255 * level) for level in hue)
    hair, skin = HAIR[int(rng.integers(len(HAIR)))], SKIN[int(rng.integers(len(SKIN)))]

    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        """Convert from radii of the head, measured from its centre, to pixels."""
        return [x + left * radius, y + top * radius, x + right * radius, y + bottom * radius]

    def rounded(corner: float, fill: Colour, *sides: float) -> None:
        pen.rounded_rectangle(box(*sides), radius=corner * radius, fill=fill)

    rounded(0.4, LEGS, -1.25, 5, 1.25, 11)
    rounded(0.4, _light(clothes, 0.7), -2.2, 1.5, -1.4, 6)  # arms
    rounded(0.4, _light(clothes, 0.7), 1.4, 1.5, 2.2, 6)
    rounded(0.8, clothes, -1.6, 1.3, 1.6, 6)
    rounded(0.8, _light(clothes, 1.15), -1.6, 1.3, 0, 6)
    pen.ellipse(box(-2.2, 1.2, 2.2, 2.6), fill=clothes)  # shoulders
    pen.rectangle(box(-0.4, 0.6, 0.4, 1.5), fill=_light(skin, 0.75))  # neck
    pen.ellipse(box(-0.95, -1.2, 0.95, 1.15), fill=hair)
    pen.ellipse(box(-0.5, -1, 0.3, -0.2), fill=tuple(level + 25 for level in hair))
    if rng.random() < 0.4:  # others are seen from behind
        turned, dark = rng.uniform(-0.25, 0.25), _light(skin, 0.45)
        pen.ellipse(box(turned - 0.72, -0.5, turned + 0.72, 1.12), fill=skin)
        for side in (-0.3, 0.3):
            eye = turned + side
            pen.ellipse(box(eye - 0.13, 0, eye + 0.13, 0.2), fill=dark)
        pen.ellipse(box(turned - 0.25, 0.62, turned + 0.25, 0.75), fill=dark)


def _light(colour: Colour, share: float) -> Colour:
    return tuple(min(255, int(share * level)) for level in colour)
