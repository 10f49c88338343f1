"""What is said where an optional extra of the package is missing or broken."""

from __future__ import annotations


class ExtraError(ValueError):
    """Something needs an extra that is not installed, or does not load; says how to get it."""

    def __init__(self, extra: str, error: ImportError) -> None:
        if isinstance(error, ModuleNotFoundError):
            super().__init__(
                f'{error.name or error} is not installed: in a clone pip install -e ".[{extra}]", '
                f'elsewhere pip install "csrnet-hub[{extra}] @ git+ADDRESS_OF_THE_REPOSITORY".'
            )
        else:  # such as a DLL that is missing
            super().__init__(
                f"The packages of extra {extra} are installed but fail to load ({error}): "
                "reinstall them with pip's --force-reinstall, and the system libraries they need."
            )
