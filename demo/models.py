"""The models that the page offers: which one counts, and on which device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from csrnet_hub import CountResult, CrowdCounter
from csrnet_hub.tiles import Progress

from . import ZERO_GPU
from .cards import told
from .shared import VisitorError
from .turns import Turns
from .visitors import still_here

GPU_SECONDS = 20  # requested from the visitor's quota per count, which takes only a few
Function = TypeVar("Function", bound=Callable[..., Any])


def on_gpu(function: Function) -> Function:
    """`spaces.GPU(function)` on a Space with ZeroGPU; otherwise the function itself."""
    if not ZERO_GPU:
        return function
    try:
        import spaces
    except ImportError:
        return function
    decorated: Function = spaces.GPU(duration=GPU_SECONDS)(function)
    return decorated


def quota_spent(error: gr.Error) -> bool:
    """Whether the error says that a visitor's ZeroGPU quota is used up; it has no own type."""
    return ZERO_GPU and "quota" in f"{error.title} {error.message}".lower()


class Models:
    """The page's counters by name; the first is the default.

    Args:
        counters: at least one.
        cards: the texts of their cards, in the same order: "" for a model without one, None where
            the card is not known.
    """

    def __init__(self, counters: Sequence[CrowdCounter], cards: Sequence[str | None] = ()) -> None:
        if not counters:
            raise ValueError("the page needs at least one counter")
        self.counters: dict[str, CrowdCounter] = {}
        for counter in counters:
            name, number = counter.name, 2
            while name in self.counters:  # two folders may have the same name
                name, number = f"{counter.name} ({number})", number + 1
            self.counters[name] = counter
        self.cards: dict[str, str | None] = dict(zip(self.counters, cards))
        self._count = on_gpu(self._tensor_part)
        self._turns = Turns()

    @property
    def names(self) -> list[str]:
        return list(self.counters)

    def find(self, name: Any = None) -> CrowdCounter:
        """The counter of that name; for None or "", the first.

        Raises:
            VisitorError: there is no such counter.
        """
        if not name:
            return self.counters[self.names[0]]
        if not isinstance(name, str) or name not in self.counters:
            raise VisitorError(f"There is no such model. Choose one of: {', '.join(self.names)}.")
        return self.counters[name]

    def count(
        self, name: Any, pixels: NDArray[np.uint8], progress: Progress | None = None
    ) -> CountResult:
        """Count the people in upright pixels (H, W, 3) when this picture's turn comes.

        Raises:
            VisitorError: there is no such model.
            ImageError: the picture has too many pixels.
            NotWantedError: the visitor has left in the meantime.
            RuntimeError: the counting failed.
        """
        self.find(name)

        def step(done: int, of: int) -> None:
            still_here()
            if progress is not None:
                progress(done, of)

        # ZeroGPU runs the count in another process, from which a callback has no effect here.
        with self._turns.turn(still_here):
            step(0, 1)  # tells whoever measures the time that the count starts here
            try:
                result = self._count(name, pixels, None if ZERO_GPU else step)
            except gr.Error as error:
                if error.title == "ZeroGPU worker error":  # its message is a class's name
                    raise RuntimeError(error.message) from error
                raise
        return replace(result, model=name or self.names[0])  # unique among folders of the same name

    def _tensor_part(
        self, name: Any, pixels: NDArray[np.uint8], progress: Progress | None
    ) -> CountResult:
        return self.find(name).count(pixels, progress=progress)

    def choice(self, elem_id: str) -> gr.Dropdown:
        """A drop-down of the models, hidden if there is only one."""
        return gr.Dropdown(
            [(told(name, counter), name) for name, counter in self.counters.items()],
            value=self.names[0],
            label="Model",
            info="The Models tab has its errors and its licence.",
            visible=len(self.names) > 1,
            elem_id=elem_id,
        )
