"""Publishes a model's files as one commit in a Hub repository."""

from __future__ import annotations

from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi

from .card import CARD_NAME, is_unedited, named, on_hub
from .model_files import ModelError

MESSAGE = "Publish a CSRNet model"  # of a commit
MAIN = "main"  # branch


class Published(NamedTuple):
    """A published commit.

    Attributes:
        repo_id: name of the repository, including its owner.
        commit, address: id and address of the commit.
        files: its files, by name.
        remark: a sentence if the repository's card was kept, else empty.
    """

    repo_id: str
    commit: str
    address: str
    files: dict[str, bytes]
    remark: str


def publish(
    api: HfApi,
    files: dict[str, bytes],
    repo_id: str,
    *,
    private: bool | None = None,
    branch: str | None = MAIN,
    message: str = MESSAGE,
    create_pr: bool | None = None,
    replace_card: bool = False,
) -> Published:
    """Commit files on the head of a branch, without overwriting concurrent commits by others.

    A missing repository or branch is created. The repository's name is filled in
    in the card, which is left out if the existing one was edited.

    Args:
        private: make a new repository private; an existing one must be private already.
        replace_card: overwrite the repository's card even if it was edited.

    Raises:
        ModelError: if the repository is public, but should be private.
        huggingface_hub.errors.HfHubHTTPError, OSError: if the Hub refuses or cannot be reached.
    """
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if private and not api.model_info(repo_id).private:
        raise ModelError(
            f"{repo_id} already exists and is public: make it private in its settings, or publish "
            "without private."
        )
    branch = branch or MAIN
    if branch != MAIN and not branch.startswith("refs/"):  # a pull request's branch exists
        api.create_branch(repo_id, branch=branch, exist_ok=True)
    head = str(api.model_info(repo_id, revision=branch).sha)
    card = named(files[CARD_NAME].decode(), repo_id)
    files, remark = files | {CARD_NAME: card.encode()}, ""
    there = None if replace_card else on_hub(api, repo_id, CARD_NAME, head)
    if there is not None and there != card and not is_unedited(there):
        del files[CARD_NAME]
        remark = (
            f"The card of {repo_id} was edited or written by other code, so it was kept with its "
            "figures: python -m train.push ... --replace-card overwrites it."
        )
    commit = api.create_commit(
        repo_id,
        [CommitOperationAdd(name, content) for name, content in files.items()],
        commit_message=message,
        revision=branch,
        create_pr=create_pr,
        parent_commit=head,
    )
    return Published(repo_id, str(commit.oid), str(commit.commit_url), files, remark)
