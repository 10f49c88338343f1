"""The model card: model_card.md, filled in from what config.json says of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from .resources import resource

if TYPE_CHECKING:
    from .model import CSRNet

COLUMNS = {"images": "d", "mae": ".1f", "rmse": ".1f", "nae": ".3f", "bias": "+.1f"}
TAGS = ["crowd-counting", "density-estimation", "csrnet", "model_hub_mixin"]


def model_card(model: CSRNet) -> ModelCard:
    """The card of a model, for ``save_pretrained`` and ``push_to_hub``.

    No pipeline tag: the Hub has none for counting. The licence is not named in the metadata, since
    weights inherit the terms of the pictures that they were trained on; the text says so.
    """
    template = resource("model_card.md")
    if template is None:
        raise FileNotFoundError("model_card.md is missing from this installation of csrnet-hub")
    data = ModelCardData(library_name="csrnet-hub", tags=TAGS)
    card: ModelCard = ModelCard.from_template(
        data,
        template_str=template.read_text(encoding="utf-8"),
        variant=model.variant,
        density_scale=model.density_scale,
        record=model.training_record or {},
        results=_results(model.metrics or {}),
    )
    return card


def _results(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    # Only what the table has columns for; a user's own figures stay in config.json.
    return [
        {"split": split, **{key: _figure(errors.get(key), form) for key, form in COLUMNS.items()}}
        for split, errors in metrics.items()
        if isinstance(errors, dict) and "mae" in errors
    ]


def _figure(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) else "–"
