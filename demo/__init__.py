"""The page: one module a tab, each a few functions that work without a browser, and a layout."""

import os
import sys
import tempfile
from pathlib import Path


def _folder() -> Path:
    """Where visitors' files go: a folder of the page's own, which it may clear of what is old; in
    the system's, which all share, one for each user."""
    own, given = "csrnet-hub", os.environ.get("GRADIO_TEMP_DIR")
    try:
        system = Path(tempfile.gettempdir())  # Gradio asks for it too
    except FileNotFoundError:
        sys.exit("app.py: no folder for temporary files can be written: set TMPDIR to one that can")
    if not given:
        user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
        return system.resolve() / f"{own}{user}"
    # a link in its name would be taken for another folder
    folder = Path(given).resolve()
    return folder if folder.name.startswith(own) else folder / own


os.environ["GRADIO_TEMP_DIR"] = str(_folder())  # Gradio asks for it while it is imported
# Here, since it is asked before torch is imported.
ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true", "yes")
