"""What the page shows about a model: its errors, its training data and its model card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import ModelCard, hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from csrnet_hub import CrowdCounter
from csrnet_hub.card import CARD_NAME, PLACEHOLDER, RECIPE, card_of, unsealed
from csrnet_hub.card import read_card as text_of
from csrnet_hub.intervals import PredictionInterval
from csrnet_hub.model_files import CONFIG_NAME, with_revision
from csrnet_hub.paths import is_folder

METRICS = {"images": "images", "mae": "MAE", "rmse": "RMSE", "nae": "NAE"}
NEW_TAB = 'target="_blank" rel="noopener"'
NO_CARD = "This model came without a card. One generated from its records says:"
NOT_HAD = "The model card could not be downloaded. It states the licence terms."
PATIENCE = 5.0  # seconds to wait for the Hub; the page can start without the card
MOST_CHARACTERS = 100_000  # of a card; the rest is cut off


def read_card(source: str) -> str | None:
    """Read the README.md that came with a model; "" if there is none, None if unavailable.

    Args:
        source: the model's folder, FILE.xml or Hub id. For a Hub id, its config.json must have been
            fetched; the card is read from the same commit.
    """
    folder = _folder_of(source)
    if folder and not (folder / CONFIG_NAME).is_file():
        return ""  # a README.md beside an exported file is about something else
    try:
        return text_of(folder / CARD_NAME if folder else _from_hub(source))
    except Exception as error:  # the Hub's client raises errors of many kinds
        unknown = isinstance(error, LocalEntryNotFoundError)  # a subclass of the next
        none = isinstance(error, EntryNotFoundError) and not unknown
        return "" if none or folder else None


def _folder_of(source: str) -> Path | None:
    if is_folder(source):
        return Path(source)
    return Path(source).parent if Path(source).suffix.lower() == ".xml" else None


def _from_hub(source: str) -> Path:
    repository, revision = with_revision(source, None)
    config = try_to_load_from_cache(str(repository), CONFIG_NAME, revision=revision)
    if not isinstance(config, str):
        raise FileNotFoundError(CONFIG_NAME)
    commit = Path(config).parent.name  # whose files the cache finds without the Hub
    return Path(hf_hub_download(str(repository), CARD_NAME, revision=commit, etag_timeout=PATIENCE))


def splits_of(counter: CrowdCounter) -> list[tuple[str, dict[str, Any]]]:
    """The splits a model was evaluated on, and their parts, each with its error figures."""
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
    """A model's name with the MAE of its first split, for a drop-down: more would not fit."""
    measured = [f"MAE {_figure(figures['mae'])} ({split})" for split, figures in splits_of(counter)]
    return " · ".join([name, *measured[:1]])


def card_html(name: str, counter: CrowdCounter, terms: str = "") -> str:
    """A model's training data, its error figures, the `terms` of its licence and its address."""
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
    none = "<p>No error figures are recorded.</p>"
    errors = f"<table><tr>{head}</tr>{body}</table>" if splits else none
    licence = f"<p>{escape(terms)}</p>" if terms else ""
    below = licence + _link(counter.name)
    return f'<div class="card"><h2>{escape(name)}</h2>{said}{errors}{below}</div>'


def training_in_words(counter: CrowdCounter) -> str:
    """How a model was trained and its interval calibrated, as far as is known."""
    record = _told(counter, "training_record")
    if record.keys() >= RECIPE:
        recipe = f' with the recipe "{record["name"]}"' if record.get("name") else ""
        said = f"Trained{recipe} for {_figure(record['steps'])} steps."
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
    """A split's mean absolute error as a sentence."""
    images, share = figures.get("images"), figures.get("nae")
    measured = f"On {images:,} photos" if isinstance(images, int) else "On the photos"
    of = f", {share:.0%} of the people in the photo" if isinstance(share, float) else ""
    mae = _figure(figures["mae"])
    return f"{measured} ({split}) its counts were off by {mae} people on average{of}."


def terms_and_text(counter: CrowdCounter, card: str | None = "") -> tuple[str, str]:
    """A sentence on the licence named in a model's card, and the card as HTML from which browsers
    fetch and run nothing; "" for either that is missing.

    Args:
        card: the text of the README.md that came with it; "" if there is none, in which case a
            card is generated from its records; None if it is not known.
    """
    if card is None:
        return NOT_HAD, ""
    first = ""
    if not card:
        try:
            first, card = f"<p>{NO_CARD}</p>\n", card_of(counter.model.config())
        except Exception:  # the records are free-form, and must not make the page fail
            return "", ""
    licence, text = _parts(card)
    text = unsealed(text[:MOST_CHARACTERS]).replace(PLACEHOLDER, counter.name)
    return licence and f"Licence: {licence}", first + _renderer().render(text)


@cache
def _renderer() -> MarkdownIt:
    """Markdown to HTML: pictures as their alt text, HTML as plain text, only links to websites."""
    renderer = MarkdownIt("commonmark").enable("table")
    for name in ("html_block", "html_inline"):
        renderer.add_render_rule(name, _as_written)
    renderer.add_render_rule("image", _as_written)
    renderer.add_render_rule("link_open", _to_websites)
    return renderer


def _as_written(_: Any, tokens: Sequence[Token], at: int, *__: Any) -> str:
    """A tag or a picture's alt text as plain text, without comments."""
    first, *rest = tokens[at].content.split("<!--")
    shown = escape(first + "".join(part.partition("-->")[2] for part in rest))
    return f"<p>{shown}</p>" if tokens[at].type == "html_block" and shown.strip() else shown


def _to_websites(renderer: RendererHTML, tokens: Sequence[Token], at: int, *rest: Any) -> str:
    link = tokens[at]
    if not str(link.attrs.get("href")).startswith(("https://", "http://", "mailto:")):
        link.attrs.pop("href", None)  # a file beside the card, which the page does not have
    link.attrs |= {"target": "_blank", "rel": "noopener"}
    return renderer.renderToken(tokens, at, *rest)


def _parts(card: str) -> tuple[str, str]:
    """The licence in a card's metadata ("" if none), and the text below the metadata."""
    if not card.startswith("---"):
        return "", card
    try:
        parsed = ModelCard(card, ignore_metadata_errors=True)
        data = parsed.data.to_dict()
    except Exception:  # the YAML may contain anything
        return "", card
    named = [data.get(f"license{part}") for part in ("", "_name", "_link")]
    words = [
        str(word)
        for value in named
        for word in (value if isinstance(value, list) else [value])
        if word
    ]
    return " · ".join(words), parsed.text


def _link(name: str) -> str:
    repository, revision = with_revision(name, None)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(repository)):  # for a folder, the name has no slash
        return ""
    address = f"{ENDPOINT}/{repository}" + (f"/tree/{quote(revision, safe='')}" if revision else "")
    return f'<p><a href="{escape(address)}" {NEW_TAB}>The model on the Hub</a></p>'


def _figure(value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:,.1f}"
