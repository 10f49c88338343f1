"""What the quickstart notebook promises: it runs from top to bottom, without a network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cells(**changes: str) -> dict[str, Any]:
    """The notebook's names after all cells ran, some constants changed."""
    names: dict[str, Any] = {}
    for cell in code_cells():
        cell = re.sub(r"^(\s*)%.*", r"\1pass", cell, flags=re.MULTILINE)  # IPython's commands
        for name, value in changes.items():
            cell = re.sub(rf"^{name} = .*", f"{name} = {value}", cell, flags=re.MULTILINE)
        exec(compile(cell, "notebook", "exec"), names)
    return names


def test_the_notebook_draws_a_crowd_counts_it_and_shows_the_map(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = run_cells()
    result = names["result"]
    assert (result.width, result.height) == names["photo"].size
    assert np.isfinite(result.density).all()
    assert f"about {result.count:.0f} people" in capsys.readouterr().out
    assert isinstance(names["figure"], Image.Image)


def test_the_notebook_counts_a_photo_and_a_model_of_the_readers_own(
    photo: Path, model_folder: Path
) -> None:
    names = run_cells(PHOTO=repr(str(photo)), MODEL=repr(str(model_folder)))
    assert (names["result"].width, names["result"].height) == (130, 90)
    assert names["result"].model == "small-model"


def test_the_notebook_runs_in_a_kernel() -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOK.parents[1])}}  # a clone, nothing installed
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    shown = [set(output.get("data", {})) for output in notebook.cells[-2].outputs]
    assert any("image/png" in kinds for kinds in shown)


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
