"""A CSRNet of few channels, in float32: for tests of all that training does but the network's size.

``python -m tests.thin`` is ``python -m train.fit`` with such a network.
"""

from __future__ import annotations

import sys

import pytest

from csrnet_hub import model
from train import fit, step

FRONTEND = (4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 16, 16, 16)
BACKEND = (16, 16, 16, 16, 8, 8)


def narrow(patch: pytest.MonkeyPatch) -> None:
    """Make every CSRNet thin until the patch is undone."""
    patch.setattr(model, "FRONTEND", FRONTEND)
    patch.setattr(model, "BACKEND", BACKEND)
    patch.setattr(step, "native_bfloat16", lambda device: False)


if __name__ == "__main__":
    narrow(pytest.MonkeyPatch())
    sys.exit(fit.main())
