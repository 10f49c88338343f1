"""The HTML report of an evaluation: figures, scatter plot, error histogram, worst pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from csrnet_hub.images import ImageError, load_image
from csrnet_hub.render import display_pair, without_latex

WORST = 10
THUMBNAIL = 320  # pixels on a picture's longer side

MADE_BY = "python -m train.evaluate"
MARK = f"<!doctype html>\n<!-- {MADE_BY} -->"  # what a page begins with

HTML = """<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ result.model }} on {{ result.data }}</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: right }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% } figure { margin: 1.5rem 0 }
</style></head><body>
<h1>{{ result.model }} on {{ result.data }}, split {{ result.split }}</h1>
{% for lines in tables %}<table>
<tr>{% for cell in lines[0] %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for line in lines[1:] %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}
{% for title, picture in plots %}<figure><img alt="{{ title }}" src="{{ picture }}"></figure>
{% endfor %}
<h2>The {{ worst|length }} largest errors</h2>
{% for one in worst %}<figure><figcaption><b>{{ one.image }}</b>: {{ one.heads }} heads, counted
{{ "%.1f"|format(one.count) }} (error {{ "%+.1f"|format(one.error) }})</figcaption>
<img alt="photograph {{ one.image }}" src="{{ one.photo }}">
<img alt="density map of {{ one.image }}" src="{{ one.map }}"></figure>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class Worst:
    """A photograph with a large error: its row, its file, its density map (h, w)."""

    row: dict[str, Any]
    path: Path
    density: NDArray[np.float32]


def write_report(
    path: Path, result: dict[str, Any], rows: Sequence[dict[str, Any]], worst: Sequence[Worst]
) -> None:
    """Write an HTML page that embeds its plots and photographs: mind their licence.

    Raises:
        ImageError, OSError: if a photograph cannot be read or the page cannot be written.
    """
    plots = {"scatter": _scatter(rows), "errors": _histogram(rows)}
    environment = jinja2.Environment(autoescape=True)
    page = environment.from_string(HTML).render(
        result=result,
        tables=[_headline(result), _range_table(result)],
        plots=[(name, _embedded(png, "png")) for name, png in plots.items()],
        worst=[one.row | _pictures(one) for one in worst],
    )
    # names may not be valid Unicode; line ends are fixed, since later runs read the mark
    path.write_bytes(f"{MARK}\n{page}\n".encode("utf-8", "backslashreplace"))


def _headline(result: dict[str, Any]) -> list[list[str]]:
    low, high = result["mae_interval"]
    lines = [
        ["figure", "value"],
        ["images", str(result["images"])],
        *([["images seen in training", str(result["seen"])]] if result.get("seen") else []),
        ["MAE (95 % interval)", f"{result['mae']:.2f} ({low:.2f} to {high:.2f})"],
        ["RMSE", f"{result['rmse']:.2f}"],
        ["NAE", "-" if result["nae"] is None else f"{result['nae']:.4f}"],
        ["bias", f"{result['bias']:+.2f}"],
    ]
    lines += [[f"GAME({level})", f"{value:.2f}"] for level, value in result["game"].items()]
    names = {"psnr": "PSNR in dB", "ssim": "SSIM", "interval_coverage": "interval coverage"}
    names["interval_width"] = "mean relative interval width"
    known = ((name, result.get(key)) for key, name in names.items())
    return lines + [[name, f"{value:.3f}"] for name, value in known if value is not None]


def _range_table(result: dict[str, Any]) -> list[list[str]]:
    lines = [["heads", "images", "MAE", "95 % interval", "RMSE", "NAE", "bias"]]
    for name, part in result["ranges"].items():
        low, high = part["mae_interval"]
        nae = "-" if part["nae"] is None else f"{part['nae']:.3f}"
        figures = [f"{part['mae']:.2f}", f"{low:.2f} to {high:.2f}", f"{part['rmse']:.2f}"]
        lines.append([name, str(part["images"]), *figures, nae, f"{part['bias']:+.2f}"])
    return lines


@without_latex()
def _scatter(rows: Sequence[dict[str, Any]]) -> bytes:
    figure, axes = _axes()
    heads, counts = ([row[key] for row in rows] for key in ("heads", "count"))
    top = max(1.0, *heads, *counts)
    axes.plot([0, top], [0, top], color="grey", linewidth=1)
    axes.scatter(heads, counts, s=14, alpha=0.7)
    axes.set_xscale("symlog", linthresh=10)
    axes.set_yscale("symlog", linthresh=10)
    axes.set_xlabel("annotated heads")
    axes.set_ylabel("count")
    axes.set_title("one point per image; on the line the count is exact")
    return _png(figure)


@without_latex()
def _histogram(rows: Sequence[dict[str, Any]]) -> bytes:
    from matplotlib.ticker import MaxNLocator

    figure, axes = _axes()
    axes.hist([row["error"] for row in rows], bins=40)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel("error: count minus annotated heads")
    axes.set_ylabel("images")
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))
    return _png(figure)


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _pictures(one: Worst) -> dict[str, str]:
    names = ("photo", "map")
    try:
        pixels = load_image(one.path)
    except ImageError as error:
        raise ImageError(f"{one.path}: {error}") from error
    pair = display_pair(pixels, one.density, THUMBNAIL, one.row["scale"])
    found = {}
    for name, picture in zip(names, pair):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=85)
        found[name] = _embedded(buffer.getvalue(), "jpeg")
    return found


def _embedded(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
