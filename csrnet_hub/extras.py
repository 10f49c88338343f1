"""Messages for an optional extra of the package that is missing or broken."""

from __future__ import annotations


class ExtraError(ValueError):
    """A required extra is not installed or does not load; the message says how to get it."""

    def __init__(self, extra: str, error: ImportError) -> None:
        if isinstance(error, ModuleNotFoundError):
            super().__init__(
                f'{error.name or error} is not installed: in a clone pip install -e ".[{extra}]", '
                f'elsewhere pip install "csrnet-hub[{extra}] @ git+ADDRESS_OF_THE_REPOSITORY".'
            )
        else:  # for example, a missing DLL
            super().__init__(
                f"The packages of extra {extra} are installed but fail to load ({error}): "
                "reinstall them with pip's --force-reinstall, and the system libraries they need."
            )
