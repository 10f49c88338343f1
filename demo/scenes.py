"""Scenes that are drawn, not photographed, with every head's place known: for trying the page."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SKIN = ((236, 205, 180), (205, 160, 125), (150, 105, 75), (95, 65, 48))
HAIR = ((30, 25, 22), (70, 48, 30), (120, 85, 45), (60, 60, 62), (170, 150, 120))


def draw_scene(
    people: int = 400, size: tuple[int, int] = (720, 480), seed: int = 0
) -> tuple[Image.Image, NDArray[np.float32]]:
    """Draw people on a square, small at the back and large in front.

    Args:
        people: how many.
        size: width and height in pixels.
        seed: the same seed draws the same scene.

    Returns:
        The picture and its heads (people, 2) as x, y in pixels, from the back to the front.
    """
    width, height = size
    rng = np.random.default_rng(seed)
    horizon = 0.22 * height
    picture = Image.new("RGB", size, (196, 208, 219))
    pen = ImageDraw.Draw(picture)
    for top in np.linspace(0, width, 9)[:-1]:  # houses at the back
        roof = horizon * rng.uniform(0.2, 0.7)
        shade = int(rng.integers(120, 175))
        pen.rectangle((top, roof, top + width / 8, horizon), fill=(shade, shade - 10, shade - 22))
    pen.rectangle((0, horizon, width, height), fill=(126, 122, 115))
    depth = np.sort(rng.beta(1.1, 2.0, people))  # most stand at the back
    heads = np.empty((people, 2), np.float32)
    for i, far in enumerate(depth):
        radius = height * (0.011 + 0.019 * far)
        x = float(rng.uniform(radius, max(width - radius, radius + 1)))
        y = float(horizon + radius + far * (height - horizon - 5 * radius))
        heads[i] = x, y
        _person(pen, x, y, radius, rng)
    picture = picture.filter(ImageFilter.GaussianBlur(0.5))
    noise = rng.normal(0, 5, (height, width, 1))
    grainy = np.clip(np.asarray(picture, np.float32) + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(grainy), heads


def _person(
    pen: ImageDraw.ImageDraw, x: float, y: float, radius: float, rng: np.random.Generator
) -> None:
    shade = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0, 0.4), rng.uniform(0.15, 0.85))
    clothes = tuple(int(255 * level) for level in shade)
    body = (x - 1.9 * radius, y + 0.8 * radius, x + 1.9 * radius, y + 7 * radius)
    pen.rounded_rectangle(body, radius=1.5 * radius, fill=clothes)
    hair = HAIR[int(rng.integers(len(HAIR)))]
    skin = SKIN[int(rng.integers(len(SKIN)))]
    pen.ellipse((x - radius, y - 1.25 * radius, x + radius, y + 1.25 * radius), fill=hair)
    face = (x - 0.8 * radius, y - 0.55 * radius, x + 0.8 * radius, y + 1.15 * radius)
    pen.ellipse(face, fill=skin)
