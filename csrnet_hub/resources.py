"""Files that lie beside the package in a clone and inside it in an installed package."""

from __future__ import annotations

from pathlib import Path

DEFAULT_MODEL = "weights/csrnet-joint"


def resource(name: str) -> Path | None:
    """Path of a file or folder that comes with the package, or None if it is missing."""
    package = Path(__file__).parent
    found = (folder / name for folder in (package, package.parent))
    return next((path for path in found if path.exists()), None)
