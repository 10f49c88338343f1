"""The page: one module a tab, each a few functions that work without a browser, and a layout."""

import os

# Here, since it is asked before torch is imported.
ZERO_GPU = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true", "yes")
