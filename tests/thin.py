"""A CSRNet of few channels, for tests of all but the network's size.

``python -m tests.thin`` is ``python -m train.fit`` with such a network, in float32.
"""

from __future__ import annotations

import pytest

from csrnet_hub import model

FRONTEND = (4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 16, 16, 16)
BACKEND = (16, 16, 16, 16, 8, 8)


def narrow(patch: pytest.MonkeyPatch) -> None:
    """Make every CSRNet thin until the patch is undone."""
    patch.setattr(model, "FRONTEND", FRONTEND)
    patch.setattr(model, "BACKEND", BACKEND)


def exact(patch: pytest.MonkeyPatch) -> None:
    """Train in float32, so that two ways to one result agree."""
    from train import step

    patch.setattr(step, "fast_bfloat16", lambda device: False)


if __name__ == "__main__":
    from train import fit, processes

    narrow(pytest.MonkeyPatch())
    exact(pytest.MonkeyPatch())
    processes.leave(fit.main())
