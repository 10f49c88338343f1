"""The page: one module per tab, each with a layout and functions that work without a browser."""

import os
import sys
import tempfile
from pathlib import Path


def _folder() -> Path:
    """The folder for visitors' files. It belongs to the page, which may remove old files from it;
    within the shared system folder there is one per user."""
    own, given = "csrnet-hub-uploads", os.environ.get("GRADIO_TEMP_DIR")
    try:
        system = Path(tempfile.gettempdir())  # Gradio calls this too
    except FileNotFoundError:
        sys.exit("app.py: no folder for temporary files can be written: set TMPDIR to one that can")
    if not given:
        user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
        return system.resolve() / f"{own}{user}"
    # resolved, since a path with a symbolic link would be taken for a different folder
    folder = Path(given).resolve()
    # as a process started by this one finds it; no clone is named so, whose files would go
    return folder if folder.name.startswith(own) else folder / own


os.environ["GRADIO_TEMP_DIR"] = str(_folder())  # Gradio reads it on import
# Defined here because it is needed before torch is imported.
ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true", "yes")
