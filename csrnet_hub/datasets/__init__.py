"""Annotated photographs from files: one module per family of formats, each yielding `Sample`."""

from .registry import FORMATS, find_splits, guess_format, paper_sigma, pick_split, read_dataset
from .sample import DatasetError, Sample

__all__ = [
    "FORMATS",
    "DatasetError",
    "Sample",
    "find_splits",
    "guess_format",
    "paper_sigma",
    "pick_split",
    "read_dataset",
]
