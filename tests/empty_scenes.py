"""Pictures without people, drawn: what a counter must find nobody in."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def empty_scenes(seed: int = 0, width: int = 512, height: int = 384) -> list[tuple[str, Picture]]:
    """Names and pictures (height, width, 3) uint8: blank, noise, text, landscapes and patterns.

    The first word of a name, before the hyphen, is its kind. Equal seeds give equal pictures.
    """
    rng = np.random.default_rng(seed)
    size = (height, width)
    scenes: dict[str, Picture] = {
        "blank-black": np.zeros((*size, 3), np.uint8),
        "blank-grey": np.full((*size, 3), 128, np.uint8),
        "blank-white": np.full((*size, 3), 255, np.uint8),
        "blank-colour": np.full((*size, 3), rng.integers(0, 256, 3), np.uint8),
        "noise-uniform": rng.integers(0, 256, (*size, 3), np.uint8),
        "noise-grey": np.repeat(rng.integers(0, 256, (*size, 1), np.uint8), 3, axis=2),
        "noise-faint": _bytes(rng.normal(128, 12, (*size, 3))),
        "noise-coarse": _coarse(rng, size, 12),
        "noise-natural": _natural(rng, size, 1.0),
        "text-page": _text(rng, size, 14),
        "text-headline": _text(rng, size, 48),
        "landscape-day": _landscape(rng, size, ((90, 150, 230), (220, 235, 250), (40, 90, 30))),
        "landscape-dusk": _landscape(rng, size, ((30, 30, 70), (240, 140, 70), (20, 20, 25))),
        "landscape-foliage": _foliage(rng, size),
        "pattern-checks": _checks(size, 24),
        "pattern-bricks": _bricks(rng, size),
    }
    return list(scenes.items())


def _bytes(values: NDArray[np.float64]) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _coarse(rng: np.random.Generator, size: tuple[int, int], block: int) -> Picture:
    small = rng.integers(0, 256, (-(-size[0] // block), -(-size[1] // block), 3), np.uint8)
    enlarged = Image.fromarray(small).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.array(enlarged)


def _field(rng: np.random.Generator, size: tuple[int, int], power: float) -> NDArray[np.float64]:
    """(H, W) random with an amplitude spectrum of 1 / f^power, as photographs have; 0 to 1."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=size)) / frequency**power
    field = np.fft.irfft2(spectrum, size)
    scaled: NDArray[np.float64] = (field - field.min()) / (np.ptp(field) or 1.0)
    return scaled


def _natural(rng: np.random.Generator, size: tuple[int, int], power: float) -> Picture:
    return _bytes(255 * np.stack([_field(rng, size, power) for _ in range(3)], axis=2))


def _text(rng: np.random.Generator, size: tuple[int, int], points: int) -> Picture:
    page = Image.new("RGB", (size[1], size[0]), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(points)
    for top in range(points // 2, size[0], round(points * 1.4)):
        words = ("".join(rng.choice(list(LETTERS), rng.integers(2, 10))) for _ in range(60))
        draw.text((points // 2, top), " ".join(words), fill="black", font=font)
    return np.array(page)


def _landscape(
    rng: np.random.Generator, size: tuple[int, int], colours: tuple[tuple[int, int, int], ...]
) -> Picture:
    high, low, ground = (np.array(colour, dtype=np.float64) for colour in colours)
    down = np.linspace(0, 1, size[0])[:, None, None]
    picture = np.broadcast_to(high + (low - high) * down, (*size, 3)).copy()
    rows, across = np.arange(size[0])[:, None], np.linspace(0, 1, size[1])[None]
    for layer in range(4):  # ridges, the nearer the lower and the more of the ground's colour
        waves = (np.sin(2 * np.pi * (n * across + rng.random())) / n for n in rng.uniform(1, 9, 5))
        ridge = size[0] * (0.45 + 0.13 * layer + 0.03 * sum(waves))
        shade = (layer + 1) / 4
        grain = 1 + 0.25 * shade * (_field(rng, size, 0.6)[..., None] - 0.5)
        picture = np.where(
            (rows > ridge)[..., None], (low + (ground - low) * shade) * grain, picture
        )
    return _bytes(picture)


def _foliage(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    light = _field(rng, size, 0.7)[..., None]
    return _bytes(
        light * np.array([120, 200, 60]) * (0.6 + 0.8 * _field(rng, size, 0.3)[..., None])
    )


def _checks(size: tuple[int, int], side: int) -> Picture:
    rows, columns = np.indices(size) // side
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


def _bricks(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    wall = Image.new("RGB", (size[1], size[0]), (190, 185, 175))
    draw = ImageDraw.Draw(wall)
    for row, top in enumerate(range(0, size[0], 20)):
        for left in range(-(row % 2) * 25, size[1], 50):
            red = int(rng.integers(120, 190))
            draw.rectangle((left + 2, top + 2, left + 47, top + 17), fill=(red, red // 2, red // 3))
    return np.array(wall)
