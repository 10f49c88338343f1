"""Explains the Hub client's errors in one sentence with the repository and the remedy."""

from __future__ import annotations

from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

# How httpx's messages begin if a proxy is unusable: socksio is missing, or it is not socks5://.
UNUSABLE_PROXY = ("Using SOCKS proxy", "Unknown scheme for proxy URL")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
NUMBERS = ("(Request ID", "(Amzn")  # of a request; the client puts them first
LONGEST = 400  # characters


def explain(
    error: BaseException, repo: str, file: str, revision: str | None, local_only: bool = False
) -> str:
    """Why a file of a Hub repository could not be loaded, and what to do about it.

    Args:
        local_only: whether only the cache was to be searched.
    """
    if type(error) is ValueError and error.__cause__ is not None:
        error = error.__cause__  # of a forced download, whose own error is uninformative
    if isinstance(error, HFValidationError):
        return f"{repo!r} is neither a folder nor a Hub repository id such as org/name."
    if isinstance(error, LocalEntryNotFoundError) and local_only:
        return (
            f"{repo} is not a local folder, and its {file} is not in the Hub cache. "
            "local_files_only forbids downloading: load the model once without it."
        )
    if isinstance(error, LocalEntryNotFoundError):
        status = http_status(error)
        trouble = f"answers with error {status}" if status else "cannot be reached"
        if isinstance(error.__cause__, FileMetadataError):  # for example, a proxy's own page
            trouble = "does not answer as it should"
        return (
            f"{repo} is neither a local folder nor in the Hub cache, and the Hub {trouble}. Check "
            "the name, the connection and HF_HUB_OFFLINE, or give a folder."
        )
    if isinstance(error, GatedRepoError):
        return f"The Hub repository {repo} is gated: ask for access on its page, then {LOG_IN}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{repo} is not a local folder, and you have access to no Hub repository of that name: "
            f"check the name; if it is private, {LOG_IN}."
        )
    if isinstance(error, RevisionNotFoundError):
        return (
            f"The Hub repository {repo} has no revision {revision!r}: give an existing branch, tag "
            "or commit, or none for the newest."
        )
    if isinstance(error, EntryNotFoundError):
        return (
            f"The Hub repository {repo} has no {file}, and nothing else is loaded instead: "
            "`csrnet convert` turns a pickled checkpoint into a model folder, and `python -m "
            "train.push` publishes one."
        )
    if http_status(error) == 401:
        return (
            f"The Hub refused the token for {repo}, or requires one: check the name, and {LOG_IN} "
            "to a valid one."
        )
    if isinstance(error, LocalTokenNotFoundError):
        return f"There is no token for the Hub on this computer: {LOG_IN}."
    if str(error).startswith(UNUSABLE_PROXY):
        return (
            f"{repo} could not be fetched from the Hub through the proxy in ALL_PROXY or "
            "HTTPS_PROXY: unset it, or write it as socks5://HOST:PORT and "
            '`pip install "httpx[socks]"`.'
        )
    network = isinstance(error, (ConnectionError, TimeoutError))
    if isinstance(error, OSError) and error.errno is not None and not network:
        return (
            f"{repo} cannot be saved to the Hub cache ({error.strerror}): set cache_dir or HF_HOME "
            "to a writable folder with free space."
        )
    return f"{repo} could not be fetched from the Hub: {one_line(error)}; try again later."


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status of the Hub's answer behind an error, if there was an answer."""
    while error is not None:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def one_line(error: BaseException) -> str:
    """An error in one line: the Hub's message, else the first line of its text, else its type."""
    words = getattr(error, "server_message", None) or str(error)
    lines = [line.strip() for line in words.splitlines()]
    telling = [line for line in lines if line and not line.startswith(NUMBERS)]
    if words != str(error) or isinstance(error, ValueError):  # a list of problems
        telling = [" ".join(telling)[:LONGEST]]
    return telling[0].rstrip(".:;") if any(telling) else type(error).__name__
