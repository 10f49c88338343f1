"""What is said where an optional extra of the package is not installed."""

from __future__ import annotations


class ExtraError(ValueError):
    """Something was asked for that needs an extra which is not installed; says how to get it."""

    def __init__(self, extra: str, error: ImportError) -> None:
        super().__init__(
            f'{error.name or error} is not installed: in a clone pip install -e ".[{extra}]", '
            f'elsewhere pip install "csrnet-hub[{extra}] @ git+ADDRESS_OF_THE_REPOSITORY".'
        )
