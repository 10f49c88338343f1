"""The models that the page offers: which one counts, where, and what its card says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from csrnet_hub import CountResult, CrowdCounter
from csrnet_hub.tiles import Progress

from . import ZERO_GPU
from .shared import VisitorError
from .turns import Turns
from .visitors import still_here

Function = TypeVar("Function", bound=Callable[..., Any])
METRICS = {"images": "images", "mae": "MAE", "rmse": "RMSE", "nae": "NAE"}


def on_gpu(function: Function) -> Function:
    """`spaces.GPU(function)` on a Space with ZeroGPU; elsewhere the function itself."""
    if not ZERO_GPU:
        return function
    try:
        import spaces
    except ImportError:
        return function
    decorated: Function = spaces.GPU(function)
    return decorated


class Models:
    """The counters behind the page, by name, the first being the default.

    Args:
        counters: at least one.
    """

    def __init__(self, counters: Sequence[CrowdCounter]) -> None:
        if not counters:
            raise ValueError("the page needs at least one counter")
        self.counters: dict[str, CrowdCounter] = {}
        for counter in counters:
            name, number = counter.name, 2
            while name in self.counters:  # two folders may have one name
                name, number = f"{counter.name} ({number})", number + 1
            self.counters[name] = counter
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
            info="Its errors and its licence are under the tab Models.",
            visible=len(self.names) > 1,
            elem_id=elem_id,
        )


def splits_of(counter: CrowdCounter) -> list[tuple[str, dict[str, Any]]]:
    """The splits that a model was measured on, and their parts, each with its error figures."""
    model = getattr(counter, "model", None)
    metrics, record = (getattr(model, name, None) for name in ("metrics", "training_record"))
    record = record if isinstance(record, dict) else {}
    found = []
    for split, figures in metrics.items() if isinstance(metrics, dict) else ():
        if split == "validation":
            split += " before the refit" if record.get("refit") else ""
            split += ", on photos it was partly trained on" if record.get("seen") else ""
        parts = figures.get("parts") if isinstance(figures, dict) else None
        named = parts.items() if isinstance(parts, dict) else ()
        found += [(str(split), figures), *((f"{split}, {name}", own) for name, own in named)]
    return [
        (name, figures) for name, figures in found if isinstance(figures, dict) and "mae" in figures
    ]


def told(name: str, counter: CrowdCounter) -> str:
    """A model's name with the MAE of its first split, for a choice: more would not fit."""
    measured = [f"MAE {_figure(figures['mae'])} ({split})" for split, figures in splits_of(counter)]
    return " · ".join([name, *measured[:1]])


def card_html(name: str, counter: CrowdCounter) -> str:
    """A model's error figures and licence, as its config.json and its card have them."""
    splits = splits_of(counter)
    head = "".join(f"<th scope='col'>{title}</th>" for title in ("data", *METRICS.values()))
    body = "".join(
        f"<tr><th scope='row'>{escape(split)}</th>"
        + "".join(f"<td>{_figure(figures.get(key))}</td>" for key in METRICS)
        + "</tr>"
        for split, figures in splits
    )
    said = "".join(f"<p>{escape(error_in_words(*split))}</p>" for split in splits)
    errors = f"<table><tr>{head}</tr>{body}</table>" if splits else "<p>No errors are recorded.</p>"
    licences = f"<h4>Licences</h4>{licence_html(counter)}"
    return f'<div class="card"><h3>{escape(name)}</h3>{said}{errors}{licences}</div>'


def error_in_words(split: str, figures: dict[str, Any]) -> str:
    """A split's mean absolute error as one would say it."""
    images, share = figures.get("images"), figures.get("nae")
    measured = f"On {images:,} pictures" if isinstance(images, int) else "On the pictures"
    of = f", {share:.0%} of those in the picture" if isinstance(share, float) else ""
    mae = _figure(figures["mae"])
    return f"{measured} ({split}) its counts were wrong by {mae} people on average{of}."


def licence_html(counter: CrowdCounter) -> str:
    """What the model's card says of licences, as a list."""
    try:
        from csrnet_hub.card import model_card

        text = str(model_card(counter.model).text)
    except Exception:  # a card is made from free-form records; the page must not fail on one
        text = ""
    section = re.search(r"^## Licen[cs]es?\s*\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    said = section.group(1).strip() if section else "See the model's card."
    parts = re.split(r"\n\s*\n|^- |\n- ", said)  # paragraphs and items
    return f"<ul>{''.join(f'<li>{escape(part)}</li>' for part in parts if part.strip())}</ul>"


def _figure(value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:,.1f}"
