"""The page: one module a tab, each a few functions that work without a browser, and a layout."""
