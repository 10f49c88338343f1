"""The model card: model_card.md, filled in from a model's config.json."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from .resources import resource

CARD_NAME = "README.md"
PLACEHOLDER = "org/name-of-this-repository"  # in the card's code, until train.push fills it in
OTHER_FIGURES = (
    "{} was edited and is kept, but its error figures are not in config.json: if they belong to an "
    "older model, correct or delete the card."
)
OTHER_MODEL = (
    "{} was edited and is kept, but the model's record has changed: if the card describes an older "
    "model, correct or delete it."
)
COLUMNS = {"images": ".0f", "mae": ".1f", "rmse": ".1f", "nae": ".3f", "bias": "+.1f"}
MEASURES = {
    "mae": "mean absolute error (heads)",
    "rmse": "root mean squared error (heads)",
    "nae": "mean of error over number of heads",
}
TAGS = ["crowd-counting", "density-estimation", "csrnet", "model_hub_mixin"]
# What train.fit records. A record that lacks any of it is not ours, so its recipe is not described.
RECIPE = {"steps", "batch", "crop", "scale", "sigma", "step", "loss", "validation", "seed"}

SEAL = re.compile(r"\s*<!-- made by csrnet-hub; sha256 of the text above: (\w+) -->\s*")


def card_of(config: Mapping[str, Any]) -> str:
    """The sealed text of the card for the content of a config.json.

    It has no pipeline tag: the Hub has none for counting. The metadata name no licence, since
    weights inherit the terms of the pictures they were trained on; the text says so.
    """
    template = resource("model_card.md")
    if template is None:
        raise FileNotFoundError("model_card.md is missing from this installation of csrnet-hub")
    text = template.read_text(encoding="utf-8")
    for left_out in ((), ("training_record",), ("metrics",), ("training_record", "metrics")):
        try:
            card = _filled(text, {**config, **dict.fromkeys(left_out)})
        except Exception as error:  # a foreign record may contain anything
            trouble = f"{type(error).__name__}: {error}"
            continue
        if left_out:
            said = f"the card leaves out {' and '.join(left_out)}, which it cannot show"
            warnings.warn(f"{said} ({trouble})", stacklevel=2)
        return sealed(card)
    raise ValueError(f"model_card.md cannot be filled in: {trouble}")


def _filled(template: str, config: Mapping[str, Any]) -> str:
    record, metrics = _dict(config.get("training_record")), _dict(config.get("metrics"))
    name = str(record.get("name") or "CSRNet")
    # The figures of a refit come from another run, and those on photographs it was trained on are
    # too good: its card can say so, the Hub's index cannot.
    not_own = record.get("refit") or record.get("seen")
    own = {key: of for key, of in metrics.items() if not (key == "validation" and not_own)}
    index = list(_eval_results(own, name))
    data = ModelCardData(
        library_name="csrnet-hub",
        tags=TAGS,
        model_name=name if index else None,
        eval_results=index or None,
    )
    starts = list(_starts(record))
    card = ModelCard.from_template(
        data,
        template_str=template,
        placeholder=PLACEHOLDER,
        variant=config["variant"],
        density_scale=config.get("density_scale", 1.0),
        min_side=config.get("min_side", 0),
        working_pixels=config.get("working_pixels", 0),
        largest_sigma=config.get("largest_sigma", 0),
        record=record,
        trained=record.keys() >= RECIPE,
        starts=starts,
        frontend=(starts[-1] if starts else record).get("frontend"),
        results=_results(metrics),
        interval=_dict(config.get("interval")),
    )
    return str(card)


def sealed(text: str) -> str:
    """Append to a card a hidden last line that reveals later edits of the text above it."""
    text = unsealed(text).encode("utf-8", "backslashreplace").decode()  # a name may not be Unicode
    return f"{text}\n\n<!-- made by csrnet-hub; sha256 of the text above: {_digest(text)} -->\n"


def unsealed(card: str) -> str:
    """A card without the line added by :func:`sealed`, whether or not the text was edited."""
    return SEAL.sub("\n", card).strip()


def is_unedited(card: str) -> bool:
    """Whether a card is sealed and its text has not changed since."""
    seal = SEAL.search(card)
    return seal is not None and seal[1] == _digest(unsealed(card))


def may_be_replaced(card: Path) -> bool:
    """Whether there is no card, or an unedited one, which describes the previous model."""
    return not card.exists() or is_unedited(read_card(card))


def read_card(path: Path) -> str:
    """Read the text of a card, whatever its encoding."""
    return path.read_text(encoding="utf-8-sig", errors="replace")  # editors add a byte-order mark


def has_other_figures(card: str, generated: str) -> bool:
    """Whether a card gives the Hub error figures that the one generated from config.json lacks."""
    return bool(_figures_for_the_hub(card) - _figures_for_the_hub(generated))


def _figures_for_the_hub(card: str) -> set[tuple[Any, Any]]:
    try:
        results = getattr(ModelCard(card).data, "eval_results", None) or []
        return {(result.metric_type, result.metric_value) for result in results}
    except Exception:  # foreign metadata may be anything
        return set()


def named(card: str, repo_id: str) -> str:
    """Fill in a card's repository name, and seal it again unless it was edited."""
    text = card.replace(PLACEHOLDER, repo_id)
    return sealed(text) if is_unedited(card) else text


def on_hub(api: HfApi, repo_id: str, name: str, commit: str) -> str | None:
    """The text of a repository's file at a commit; None if there is no such file."""
    with TemporaryDirectory() as cache:
        try:
            path = api.hf_hub_download(repo_id, name, revision=commit, cache_dir=cache)
        except LocalEntryNotFoundError:  # the Hub could not be asked
            raise
        except EntryNotFoundError:
            return None
        return read_card(Path(path))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _starts(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The models that a run started from: its own start, that model's start, and so on."""
    while isinstance(init := record.get("init"), dict):
        yield init
        record = init


def _measured(metrics: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    # Only what the table has columns for; a user's other figures stay in config.json.
    for split, errors in metrics.items():
        if isinstance(errors, dict) and "mae" in errors:
            yield split, errors


def _results(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "split": split,
            "dataset": errors.get("dataset") if "split" not in errors else None,
            "coverage": _figure(errors.get("interval_coverage"), ".0%"),
            **_figures(errors),
            "parts": [
                {"name": name, **_figures(_dict(part))}
                for name, part in _dict(errors.get("parts")).items()
            ],
            "ranges": [
                {"people": people, **_figures(_dict(part))}
                for people, part in _dict(errors.get("ranges")).items()
            ],
        }
        for split, errors in _measured(metrics)
    ]


def _figures(errors: dict[str, Any]) -> dict[str, str]:
    figures = {key: _figure(errors.get(key), form) for key, form in COLUMNS.items()}
    ends = errors.get("mae_interval")
    if isinstance(ends, list) and len(ends) == 2:
        figures["mae"] += " ({} to {})".format(*(_figure(end, COLUMNS["mae"]) for end in ends))
    return figures


def _figure(value: Any, form: str) -> str:
    return format(value, form) if _is_number(value) else "–"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _eval_results(metrics: dict[str, Any], name: str) -> Iterator[EvalResult]:
    """The entries that the Hub reads as ``model-index``."""
    for split, errors in _measured(metrics):
        dataset = str(errors.get("dataset") or f"pictures of {name}")
        for measure, meaning in MEASURES.items():
            if _is_number(errors.get(measure)):
                yield EvalResult(
                    task_type="crowd-counting",
                    task_name="Crowd counting",
                    dataset_type=re.sub(r"\W+", "-", dataset).strip("-").lower(),
                    dataset_name=dataset,
                    dataset_split=str(errors.get("split") or split),
                    metric_type=measure,
                    metric_name=meaning,
                    metric_value=round(float(errors[measure]), 3),
                )
