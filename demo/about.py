"""The tab on the models: what each one's card says."""

from __future__ import annotations

import gradio as gr

from .cards import card_html
from .models import Models

INTRO = """\
How far each model's counts were from the number of annotated heads. MAE is the mean absolute error,
RMSE the root of the mean squared error (large errors weigh more), NAE the mean error as a share of
the heads.
"""


def layout(models: Models) -> None:
    """One card a model."""
    gr.Markdown(INTRO)
    cards = (
        card_html(name, counter, models.cards.get(name, ""))
        for name, counter in models.counters.items()
    )
    gr.HTML("".join(cards))
