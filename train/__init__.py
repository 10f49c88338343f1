"""From annotated photographs to a model folder: prepare, fit, evaluate."""
