"""What the page says of a model: its errors, what it was trained on, the card that came with it."""

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
PATIENCE = 5.0  # seconds for the Hub's answer, of a page that would start without it
MOST_CHARACTERS = 100_000  # of a card: more is cut off


def read_card(source: str) -> str | None:
    """The README.md that came with a model; "" where there is none, None where it cannot be had.

    Args:
        source: the model's folder, FILE.xml or Hub id; of the last, after its config.json was
            fetched, whose commit the card is then of.
    """
    folder = _folder_of(source)
    if folder and not (folder / CONFIG_NAME).is_file():
        return ""  # a README.md beside an exported file, but of something else
    try:
        return text_of(folder / CARD_NAME if folder else _from_hub(source))
    except Exception as error:  # the Hub's client lets many kinds through
        unknown = isinstance(error, LocalEntryNotFoundError)  # an EntryNotFoundError too
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


def card_html(name: str, counter: CrowdCounter, terms: str = "") -> str:
    """What a model was trained on, its error figures, the `terms` of its licence, its address."""
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
    return f'<div class="card"><h3>{escape(name)}</h3>{said}{errors}{below}</div>'


def training_in_words(counter: CrowdCounter) -> str:
    """What a model was trained on, and what its interval was calibrated on, as far as is known."""
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
    """A split's mean absolute error as one would say it."""
    images, share = figures.get("images"), figures.get("nae")
    measured = f"On {images:,} photos" if isinstance(images, int) else "On the photos"
    of = f", {share:.0%} of the people in the photo" if isinstance(share, float) else ""
    mae = _figure(figures["mae"])
    return f"{measured} ({split}) its counts were off by {mae} people on average{of}."


def terms_and_text(counter: CrowdCounter, card: str | None = "") -> tuple[str, str]:
    """A sentence on the licence that a model's card names, and the card as HTML of which browsers
    fetch and run nothing; "" where there is none.

    Args:
        card: the text of the README.md that came with it; "" for none, in whose place there is
            the one that its records make; None if it is not known.
    """
    if card is None:
        return NOT_HAD, ""
    first = ""
    if not card:
        try:
            first, card = f"<p>{NO_CARD}</p>\n", card_of(counter.model.config())
        except Exception:  # it is made from free-form records; the page must not fail on one
            return "", ""
    licence, text = _parts(card)
    text = unsealed(text[:MOST_CHARACTERS]).replace(PLACEHOLDER, counter.name)
    return licence and f"Licence: {licence}", first + _renderer().render(text)


@cache
def _renderer() -> MarkdownIt:
    """Markdown to HTML: pictures as their words, HTML as it is written, links to websites alone."""
    renderer = MarkdownIt("commonmark").enable("table")
    for name in ("html_block", "html_inline"):
        renderer.add_render_rule(name, _as_written)
    renderer.add_render_rule("image", _as_written)
    renderer.add_render_rule("link_open", _to_websites)
    return renderer


def _as_written(_: Any, tokens: Sequence[Token], at: int, *__: Any) -> str:
    """A tag or a picture's words as text, without comments."""
    first, *rest = tokens[at].content.split("<!--")
    shown = escape(first + "".join(part.partition("-->")[2] for part in rest))
    return f"<p>{shown}</p>" if tokens[at].type == "html_block" and shown.strip() else shown


def _to_websites(renderer: RendererHTML, tokens: Sequence[Token], at: int, *rest: Any) -> str:
    link = tokens[at]
    if not str(link.attrs.get("href")).startswith(("https://", "http://", "mailto:")):
        link.attrs.pop("href", None)  # of a file beside the card, which the page does not have
    link.attrs |= {"target": "_blank", "rel": "noopener"}
    return renderer.renderToken(tokens, at, *rest)


def _parts(card: str) -> tuple[str, str]:
    """The licence in the metadata at a card's head, "" for none, and the text below them."""
    if not card.startswith("---"):
        return "", card
    try:
        parsed = ModelCard(card, ignore_metadata_errors=True)
        data = parsed.data.to_dict()
    except Exception:  # a stranger's YAML
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
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(repository)):  # a folder's name has no parents
        return ""
    address = f"{ENDPOINT}/{repository}" + (f"/tree/{quote(revision, safe='')}" if revision else "")
    return f'<p><a href="{escape(address)}" {NEW_TAB}>The model on the Hub</a></p>'


def _figure(value: Any) -> str:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:,.1f}"
