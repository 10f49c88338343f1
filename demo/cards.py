"""What a model's card says: its errors, what it was trained on, its licences."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from csrnet_hub import CrowdCounter
from csrnet_hub.card import CARD_NAME, RECIPE, is_unedited, model_card, unsealed
from csrnet_hub.intervals import PredictionInterval
from csrnet_hub.model_files import CONFIG_NAME, is_folder, with_revision

METRICS = {"images": "images", "mae": "MAE", "rmse": "RMSE", "nae": "NAE"}
LICENCE = re.compile(r"^(#+)[ \t][^\n]*\blicen[cs](?:es?|ing)\b[^\n]*\n", re.I | re.M)
ADDRESS = re.compile(r"\[([^][]+)\]\((https://[^\s()]+)\)")  # Markdown's link, once escaped
NEW_TAB = 'target="_blank" rel="noopener"'
NO_CARD = "No card came with the model. The one that csrnet-hub makes for it says:"
NOT_HAD = "The model's card could not be had here: its terms stand there."
NO_LICENCE = "The model's card names no licence."
PATIENCE = 5.0  # seconds for the Hub's answer, of a page that would start without it


def read_card(source: str) -> str | None:
    """The README.md that came with a model; "" where there is none, None where it cannot be had.

    Args:
        source: the model's folder, FILE.xml or Hub id; of the last, after its config.json was
            fetched, whose commit the card is then of.
    """
    try:
        return _card_file(source).read_text(encoding="utf-8-sig", errors="replace")
    except Exception as error:  # the Hub's client lets many kinds through
        unknown = isinstance(error, LocalEntryNotFoundError)  # an EntryNotFoundError too
        none = isinstance(error, EntryNotFoundError) and not unknown
        return "" if none or is_folder(source) else None


def _card_file(source: str) -> Path:
    if is_folder(source):
        return Path(source) / CARD_NAME
    repository, revision = with_revision(source, None)
    config = try_to_load_from_cache(str(repository), CONFIG_NAME, revision=revision)
    if not isinstance(config, str):
        raise FileNotFoundError(CONFIG_NAME)
    commit = Path(config).parent.name  # of which the cache has its files without the Hub
    return Path(hf_hub_download(str(repository), CARD_NAME, revision=commit, etag_timeout=PATIENCE))


def splits_of(counter: CrowdCounter) -> list[tuple[str, dict[str, Any]]]:
    """The splits that a model was measured on, and their parts, each with its error figures."""
    metrics, record = _told(counter, "metrics"), _told(counter, "training_record")
    found = []
    for split, figures in metrics.items():
        if split == "validation":
            split += " before the refit" if record.get("refit") else ""
            split += ", on photos it was partly trained on" if record.get("seen") else ""
        parts = figures.get("parts") if isinstance(figures, dict) else None
        named = parts.items() if isinstance(parts, dict) else ()
        found += [(str(split), figures), *((f"{split}, {name}", own) for name, own in named)]
    return [
        (name, figures) for name, figures in found if isinstance(figures, dict) and "mae" in figures
    ]


def _told(counter: CrowdCounter, what: str) -> dict[str, Any]:
    value = getattr(getattr(counter, "model", None), what, None)
    return value if isinstance(value, dict) else {}


def told(name: str, counter: CrowdCounter) -> str:
    """A model's name with the MAE of its first split, for a choice: more would not fit."""
    measured = [f"MAE {_figure(figures['mae'])} ({split})" for split, figures in splits_of(counter)]
    return " · ".join([name, *measured[:1]])


def card_html(name: str, counter: CrowdCounter, card: str | None = "") -> str:
    """What a model was trained on, its error figures and its licence.

    Args:
        card: the text of the README.md that came with it, "" for none, None if it is not known.
    """
    splits = splits_of(counter)
    head = "".join(f"<th scope='col'>{title}</th>" for title in ("data", *METRICS.values()))
    body = "".join(
        f"<tr><th scope='row'>{escape(split)}</th>"
        + "".join(f"<td>{_figure(figures.get(key))}</td>" for key in METRICS)
        + "</tr>"
        for split, figures in splits
    )
    sentences = [training_in_words(counter), *(error_in_words(*split) for split in splits)]
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    errors = f"<table><tr>{head}</tr>{body}</table>" if splits else "<p>No errors are recorded.</p>"
    licences = f"<h4>Licences</h4>{licence_html(counter, card)}"
    return f'<div class="card"><h3>{escape(name)}</h3>{said}{errors}{licences}</div>'


def training_in_words(counter: CrowdCounter) -> str:
    """What a model was trained on, and what its interval was calibrated on, as far as is known."""
    record = _told(counter, "training_record")
    if record.keys() >= RECIPE:
        recipe = f' by the recipe "{record["name"]}"' if record.get("name") else ""
        said = f"Trained{recipe}, {_figure(record['steps'])} steps."
    elif record.get("converted_from"):
        said = f"Converted from {record['converted_from']}; how that was trained is not recorded."
    else:
        said = "What it was trained on is not recorded."
    interval = getattr(getattr(counter, "model", None), "interval", None)
    if not isinstance(interval, PredictionInterval):
        return f"{said} It gives no prediction interval."
    pictures = f"calibrated on {interval.images:,} photos"
    return f"{said} Its {interval.level:.0%} prediction interval was {pictures}."


def error_in_words(split: str, figures: dict[str, Any]) -> str:
    """A split's mean absolute error as one would say it."""
    images, share = figures.get("images"), figures.get("nae")
    measured = f"On {images:,} pictures" if isinstance(images, int) else "On the pictures"
    of = f", {share:.0%} of those in the picture" if isinstance(share, float) else ""
    mae = _figure(figures["mae"])
    return f"{measured} ({split}) its counts were wrong by {mae} people on average{of}."


def licence_html(counter: CrowdCounter, card: str | None = "") -> str:
    """What the model's card says of licences, as a list: that which came with it, or, without one
    that somebody wrote, the one that its record makes; below, the address of a Hub's model."""
    if card is None:
        return f"<ul><li>{NOT_HAD}</li>{_link(counter.name)}</ul>"
    first, own = ("" if card else f"<p>{NO_CARD}</p>"), card
    if not card or is_unedited(card):
        try:
            own = str(model_card(counter.model))
        except Exception:  # it is made from free-form records; the page must not fail on one
            first, own = "", card
    parts = [*_named_licence(own), *_section(own)] or [NO_LICENCE]
    said = "".join(f"<li>{_with_links(part)}</li>" for part in parts)
    return f"{first}<ul>{said}{_link(counter.name)}</ul>"


def _named_licence(card: str) -> list[str]:
    """What the metadata at the card's head name as its licence."""
    if not card.startswith("---"):
        return []
    try:
        data = ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a stranger's YAML
        return []
    named = [data.get(f"license{part}") for part in ("", "_name", "_link")]
    words = [
        str(word)
        for value in named
        for word in (value if isinstance(value, list) else [value])
        if word
    ]
    return [" · ".join(words)] if words else []


def _section(card: str) -> list[str]:
    """The paragraphs and items of the card's section on licences."""
    text = re.sub(r"<!--.*?-->", "", unsealed(card), flags=re.DOTALL)
    heading = LICENCE.search(text)
    if heading is None:
        return []
    rest = text[heading.end() :]
    following = re.search(rf"^#{{1,{len(heading[1])}}}[ \t]", rest, re.MULTILINE)
    said = rest[: following.start()] if following else rest
    parts = re.split(r"\n\s*\n|\n(?=\s*[-*] )", said)
    plain = (re.sub(r"^\s*(?:[-*]|#+) ", "", part).strip() for part in parts)
    return [part for part in plain if part]


def _with_links(text: str) -> str:
    return ADDRESS.sub(rf'<a href="\2" {NEW_TAB}>\1</a>', escape(text))


def _link(name: str) -> str:
    repository, revision = with_revision(name, None)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(repository)):  # a folder's name has no parents
        return ""
    address = f"{ENDPOINT}/{repository}" + (f"/tree/{quote(revision, safe='')}" if revision else "")
    return f'<li><a href="{escape(address)}" {NEW_TAB}>The model on the Hub</a></li>'


def _figure(value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:,.1f}"
