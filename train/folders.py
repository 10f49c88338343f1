"""The model folder that a run leaves: replaced as a whole, with nothing lost of a user's in it."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

from csrnet_hub.card import CARD_NAME, is_unedited, read_card
from csrnet_hub.model import CSRNet
from csrnet_hub.model_files import CONFIG_NAME, WEIGHTS_NAME

EDITED_CARD = "README.edited{}.md"  # a card that was edited, beside the one that took its place
OURS = (CONFIG_NAME, WEIGHTS_NAME, CARD_NAME)
PAUSES = [0.5] * 10  # seconds: a virus scanner or a synchroniser is soon done with a file


def write_folder(model: CSRNet, out: Path) -> None:
    """A model folder that is whole before it takes its name, in place of an older one."""
    out = _lies_at(out)
    put_back(out)
    # save_pretrained may be interrupted
    partial, old = out.with_name(out.name + ".partial"), _replaced(out)
    _move_rest(old, out)  # of a save that was interrupted
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(partial)
    for path in partial.iterdir():  # on the disk before the older one goes
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    if out.exists():
        _copy_own(out, partial)
        _rename(out, old)
    _rename(partial, out)
    _move_rest(old, out)
    shutil.rmtree(old, ignore_errors=True)


def _copy_own(old: Path, new: Path) -> None:
    """Take over what a user put into a model folder: files of theirs, and a card they edited."""
    for path in old.iterdir():
        if path.name not in OURS:
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.copytree(path, new / path.name, symlinks=True)
                else:
                    shutil.copy2(path, new / path.name, follow_symlinks=False)
            except OSError:  # it may not be read, for one: it can still be moved, later
                shutil.rmtree(new / path.name, ignore_errors=True)
                with suppress(OSError):
                    (new / path.name).unlink()
    card = old / CARD_NAME
    if card.is_file() and not is_unedited(read_card(card)):
        names = (EDITED_CARD.format(f"-{i}" if i > 1 else "") for i in count(1))
        shutil.copy2(card, new / next(name for name in names if not os.path.lexists(new / name)))


def _move_rest(old: Path, new: Path) -> None:
    """Move what could not be copied, so that nothing of a user's goes with the older folder."""
    if old.is_dir() and new.is_dir():
        for path in list(old.iterdir()):
            if path.name not in OURS and not os.path.lexists(new / path.name):
                path.rename(new / path.name)


def _lies_at(out: Path) -> Path:
    """The folder itself where `out` is a link to it, on another disk say: the link stays."""
    return out.resolve() if out.is_symlink() else out


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")  # best.old would be somebody's own copy


def put_back(out: Path) -> None:
    """Give a model folder its name again, where a crash while it was replaced took that."""
    out = _lies_at(out)
    old = _replaced(out)
    if old.exists() and not out.exists():
        with suppress(FileNotFoundError):  # another process of the run was quicker
            _rename(old, out)


def _rename(folder: Path, new: Path) -> None:
    """Rename a folder, which Windows refuses while another program has a file in it open."""
    for pause in PAUSES:
        try:
            folder.rename(new)
            return
        except PermissionError:
            time.sleep(pause)
    folder.rename(new)
