"""The tab about the models: their errors and model cards."""

from __future__ import annotations

import gradio as gr

from .cards import card_html, terms_and_text
from .models import Models

INTRO = """\
How far each model's counts were from the number of annotated heads. MAE is the mean absolute error,
RMSE the root mean squared error (large errors weigh more), NAE the mean error as a share of the
heads.
"""


def layout(models: Models) -> None:
    """Show each model's figures and, below them, the card that came with it."""
    gr.Markdown(INTRO)
    for name, counter in models.counters.items():
        terms, text = terms_and_text(counter, models.cards.get(name, ""))
        gr.HTML(card_html(name, counter, terms))
        with gr.Accordion("Model card", open=False, visible=bool(text)):
            gr.HTML(f'<div class="prose model-card">{text}</div>')
