"""The page: one module a tab, each a few functions that work without a browser, and a layout."""

import os
import tempfile
from pathlib import Path

# One folder under one name for all of Gradio, which asks for it while it is imported; a link in its
# name would be taken for another folder.
os.environ["GRADIO_TEMP_DIR"] = str(
    Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio")).resolve()
)
# Here, since it is asked before torch is imported.
ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true", "yes")
