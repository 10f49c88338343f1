"""Annotated photographs from files: one module per family of formats, each yielding `Sample`."""

from .sample import DatasetError, Sample
from .shanghaitech import read_shanghaitech

__all__ = ["DatasetError", "Sample", "read_shanghaitech"]
