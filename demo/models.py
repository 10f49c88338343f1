"""The models that the page offers: which one counts, and where."""

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

GPU_SECONDS = 20  # a count takes few, and more of its visitor's quota is asked for than it uses
Function = TypeVar("Function", bound=Callable[..., Any])


def on_gpu(function: Function) -> Function:
    """`spaces.GPU(function)` on a Space with ZeroGPU; elsewhere the function itself."""
    if not ZERO_GPU:
        return function
    try:
        import spaces
    except ImportError:
        return function
    decorated: Function = spaces.GPU(duration=GPU_SECONDS)(function)
    return decorated


def quota_spent(error: gr.Error) -> bool:
    """Whether a visitor's time on a GPU of ZeroGPU is spent; its error has no type of its own."""
    return ZERO_GPU and "quota" in f"{error.title} {error.message}".lower()


class Models:
    """The counters behind the page, by name, the first being the default.

    Args:
        counters: at least one.
        cards: the texts of the cards that came with them, in their order; "" for none, None for one
            that is not known.
    """

    def __init__(self, counters: Sequence[CrowdCounter], cards: Sequence[str | None] = ()) -> None:
        if not counters:
            raise ValueError("the page needs at least one counter")
        self.counters: dict[str, CrowdCounter] = {}
        for counter in counters:
            name, number = counter.name, 2
            while name in self.counters:  # two folders may have one name
                name, number = f"{counter.name} ({number})", number + 1
            self.counters[name] = counter
        self.cards: dict[str, str | None] = dict(zip(self.counters, cards))
        self._count = on_gpu(self._tensor_part)
        self._turns = Turns()

    @property
    def names(self) -> list[str]:
        return list(self.counters)

    def find(self, name: Any = None) -> CrowdCounter:
        """The counter of that name; the first for None or "".

        Raises:
            VisitorError: there is none.
        """
        if not name:
            return self.counters[self.names[0]]
        if not isinstance(name, str) or name not in self.counters:
            raise VisitorError(f"There is no such model. Choose one of: {', '.join(self.names)}.")
        return self.counters[name]

    def count(
        self, name: Any, pixels: NDArray[np.uint8], progress: Progress | None = None
    ) -> CountResult:
        """Count the people in upright pixels (H, W, 3), when it is this picture's turn.

        Raises:
            VisitorError: there is no such model.
            ImageError: the picture has too many pixels.
            NotWantedError: the visitor has left meanwhile.
        """
        self.find(name)

        def step(done: int, of: int) -> None:
            still_here()
            if progress is not None:
                progress(done, of)

        # ZeroGPU runs it in another process, where a callback would not be heard.
        with self._turns.turn(still_here):
            step(0, 1)  # for whoever reckons with the time: it begins here
            result = self._count(name, pixels, None if ZERO_GPU else step)
        return replace(result, model=name or self.names[0])  # of two folders' models of one name

    def _tensor_part(
        self, name: Any, pixels: NDArray[np.uint8], progress: Progress | None
    ) -> CountResult:
        return self.find(name).count(pixels, progress=progress)

    def choice(self, elem_id: str) -> gr.Dropdown:
        """A choice of model, not shown where there is only one."""
        return gr.Dropdown(
            [(told(name, counter), name) for name, counter in self.counters.items()],
            value=self.names[0],
            label="Model",
            info="The Models tab has its errors and its licence.",
            visible=len(self.names) > 1,
            elem_id=elem_id,
        )
