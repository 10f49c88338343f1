"""Publish a model folder: python -m train.push WEIGHTS_FOLDER org/name [--private] [--dry-run]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from csrnet_hub import CrowdCounter, CSRNet, ModelError
from csrnet_hub.card import (
    CARD_NAME,
    OTHER_FIGURES,
    card_of,
    has_other_figures,
    is_unedited,
    named,
)
from csrnet_hub.cli import exit_code
from csrnet_hub.hub import LOG_IN, http_status, one_line
from csrnet_hub.model_files import CONFIG_NAME, WEIGHTS_NAME, find_file
from csrnet_hub.named import named_path
from csrnet_hub.publish import MAIN, Published, publish


class PushError(RuntimeError):
    """A failed push; one sentence that says why and what to do."""


def push(
    files: dict[str, bytes],
    repo_id: str,
    *,
    private: bool = False,
    revision: str = MAIN,
    replace_card: bool = False,
) -> Published:
    """Publish the result of :func:`read_files` in one commit, then load it back and compare.

    Args:
        private: make a new repository private; an existing one must be private already.
        revision: branch to commit to; created from the main one if missing.
        replace_card: overwrite the repository's card even if somebody edited it.

    Raises:
        PushError: saying what is wrong and what to do; a push is one commit, so nothing is ever
            half published.
        ModelError: if a private repository was requested, but an existing one is public.
    """
    if not get_token():
        raise PushError(f"There is no token for the Hub: {LOG_IN} to one with write access.")
    api = HfApi(library_name="csrnet-hub")
    with _in_one_sentence(repo_id):
        published = publish(
            api,
            files,
            repo_id,
            private=private or None,
            branch=revision,
            replace_card=replace_card,
        )
    _compare(api, repo_id, published.commit, published.files)
    return published


def read_files(folder: Path, repo_id: str) -> dict[str, bytes]:
    """The files that a push sends, by name: checked, with the repository's name in the card.

    Raises:
        PushError: if the repository name is invalid, or there is no such folder.
        ModelError: if the model cannot be loaded, or does not count.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(
            f"{repo_id!r} is not a valid Hub repository name; give org/name."
        ) from error
    if repo_id.count("/") != 1:
        raise PushError(f"{repo_id!r} has no owner; give org/name.")
    if not folder.is_dir():
        raise PushError(f"There is no folder {folder}; give a model folder.")
    files = _read(folder)
    if _read(folder) != files:
        raise PushError(f"{folder} changed while it was read, perhaps by a run: push again.")
    with TemporaryDirectory() as checked:  # what is sent, even if the folder changes
        for name, content in files.items():
            (Path(checked) / name).write_bytes(content)
        model = CSRNet.from_pretrained(checked)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    CrowdCounter(model, "cpu").count(noise)
    card = card_of(model.config())
    if CARD_NAME in files:
        try:
            own = files[CARD_NAME].decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise PushError(
                f"{folder / CARD_NAME} is not in UTF-8: save it again as UTF-8."
            ) from error
        if not is_unedited(own):  # an unedited card may be from an older version
            if has_other_figures(own, card):
                print(f"push: {OTHER_FIGURES.format(folder / CARD_NAME)}", file=sys.stderr)
            card = own
    return files | {CARD_NAME: named(card, repo_id).encode()}


def _read(folder: Path) -> dict[str, bytes]:
    paths = [find_file(folder, name, {}) for name in (CONFIG_NAME, WEIGHTS_NAME)]
    paths += [folder / CARD_NAME] if (folder / CARD_NAME).is_file() else []
    return {path.name: path.read_bytes() for path in paths}


def _compare(api: HfApi, repo_id: str, commit: str, files: dict[str, bytes]) -> None:
    """Load a commit afresh and compare it with what was sent, byte by byte."""
    with TemporaryDirectory() as cache:
        try:
            back = {
                name: Path(api.hf_hub_download(repo_id, name, revision=commit, cache_dir=cache))
                for name in files
            }
            CSRNet.from_pretrained(back[CONFIG_NAME].parent)  # a local folder may have its name
            wrong = [name for name, content in files.items() if back[name].read_bytes() != content]
        except Exception as error:  # the client lets many kinds of its transport's errors through
            raise PushError(
                f"{repo_id} is published as commit {commit[:8]}, but could not be downloaded again "
                f"to check it: {one_line(error)}."
            ) from error
    if wrong:
        raise PushError(
            f"{repo_id} is published as commit {commit[:8]}, but {', '.join(wrong)} from the Hub "
            "differs from what was sent: push again, or revert the commit on the Hub."
        )


@contextmanager
def _in_one_sentence(repo_id: str) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # the client lets many kinds of its transport's errors through
        raise PushError(_sentence(error, repo_id)) from error


def _sentence(error: Exception, repo_id: str) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, so nothing was sent to {repo_id}: unset it to push."
    status, said = http_status(error), one_line(error)
    if status == 401:
        return f"The Hub refused the token, so nothing went to {repo_id}: {LOG_IN} to a valid one."
    if status == 403:
        return (
            f"The token may not write to {repo_id} ({said}): unless the reason in brackets says "
            f"otherwise, {LOG_IN} to one with write access."
        )
    if status in (409, 412):
        return f"{repo_id} was changed by somebody else during the push: push again."
    cut = isinstance(error, LocalEntryNotFoundError)  # which may be a ValueError too
    if not cut and (status is not None or isinstance(error, ValueError)):
        return f"The Hub refused the push to {repo_id}: {said}."
    return (
        f"The push to {repo_id} failed because the Hub cannot be reached ({said}). A push is one "
        "commit, so nothing is half published: push again."
    )


def show(files: dict[str, bytes], repo_id: str, revision: str) -> None:
    """Print what a push sends, and where."""
    print(f"To {repo_id}, branch {revision}, in one commit:")
    for name, content in files.items():
        print(f"  {name:<20}{len(content) / 1e6:>10.3f} MB")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of ``python -m train.push``."""
    parser = argparse.ArgumentParser(prog="python -m train.push", description=__doc__)
    parser.add_argument("folder", type=named_path, help="model folder, such as runs/partA/best")
    parser.add_argument("repo_id", metavar="org/name", help="Hub repository; created if missing")
    parser.add_argument("--private", action="store_true", help="visible to you and your org only")
    parser.add_argument("--revision", default=MAIN, metavar="BRANCH", help="default: main")
    parser.add_argument(
        "--replace-card", action="store_true", help="overwrite a card that was edited on the Hub"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check and list the files, send nothing"
    )
    return exit_code(
        "push",
        partial(_push, parser.parse_args(argv)),
        errors=(PushError,),
        stopped=lambda: "a push is one commit, so nothing is half published",
    )


def _push(options: argparse.Namespace) -> int:
    files = read_files(options.folder, options.repo_id)
    show(files, options.repo_id, options.revision)
    if options.dry_run:
        print("A dry run: nothing was sent.")
        return 0
    published = push(
        files,
        options.repo_id,
        private=options.private,
        revision=options.revision,
        replace_card=options.replace_card,
    )
    if published.remark:
        print(f"push: {published.remark}", file=sys.stderr)
    print(f"Published, downloaded again and verified byte for byte: {published.address}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
