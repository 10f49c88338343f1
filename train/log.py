"""A run's reports: a progress bar, log.jsonl, TensorBoard events if it is installed, and curves."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from csrnet_hub.render import without_latex

FILE = "log.jsonl"


class Log:
    """The reports of one run, from a given step; a context manager, for the bar and the curves.

    Args:
        out: folder of the run. Log entries later than ``step`` are dropped, so that a killed run
            resumed from a checkpoint leaves the same log as an uninterrupted one.
        steps: total steps of the run.
    """

    def __init__(self, out: Path, step: int, steps: int) -> None:
        self.out = out
        kept = [entry for entry in read_log(out / FILE) if entry["step"] <= step]
        self.start = time.perf_counter() - (kept[-1].get("seconds", 0.0) if kept else 0.0)
        partial = out / f"{FILE}.partial"  # a run killed here keeps its old log
        lines = (json.dumps(entry) + "\n" for entry in kept)
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(out / FILE)
        self.file = (out / FILE).open("a", encoding="utf-8")
        self.bar = tqdm(total=steps, initial=step, desc="train", unit="step")
        self.board = _tensorboard(out, step)

    def step(self, step: int) -> None:
        """Advance the bar."""
        self.bar.update(step - self.bar.n)

    def training(self, step: int, loss: float, empty: float, rate: float, speed: float) -> None:
        """Report the mean loss since the last report, that of empty maps, and crops per second."""
        self.step(step)
        self.bar.set_postfix(loss=f"{loss:.1f}", of_empty=f"{loss / max(empty, 1e-9):.2f}")
        self._write(step, loss=loss, empty=empty, rate=rate, crops_per_second=speed)

    def validation(self, step: int, errors: dict[str, Any]) -> None:
        """Report the errors on the held-out pictures."""
        mae, rmse, bias = (errors[name] for name in ("mae", "rmse", "bias"))
        parts = [f"; {part} {own['mae']:.1f}" for part, own in errors.get("parts", {}).items()]
        said = f"step {step}: validation MAE {mae:.1f}, RMSE {rmse:.1f}, bias {bias:+.1f}"
        self.bar.write(said + "".join(parts), file=sys.stderr)  # stdout is for train.ablate's table
        self._write(step, **{name: value for name, value in errors.items() if name != "ranges"})

    def _write(self, step: int, **entry: Any) -> None:
        seconds = time.perf_counter() - self.start
        print(json.dumps({"step": step, "seconds": seconds, **entry}), file=self.file, flush=True)
        if self.board is not None:
            for name, value in entry.items():
                if isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, step)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        self.file.close()
        if self.board is not None:
            self.board.close()
        with suppress(OSError):  # on a full disk it would mask what ended the run
            draw_curves(self.out / FILE, self.out / "curves.png")


def _tensorboard(out: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # pip install tensorboard, for those who want it
        return None
    return SummaryWriter(str(out), purge_step=step + 1)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, without a truncated last line."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries


@without_latex()
def draw_curves(log: Path, out: Path) -> None:
    """Plot the training loss and the validation errors over the steps to a PNG file."""
    from matplotlib.figure import Figure

    entries = read_log(log)
    losses = [
        (entry["step"], entry["loss"], entry["empty"]) for entry in entries if "loss" in entry
    ]
    errors = [(entry["step"], entry["mae"], entry["rmse"]) for entry in entries if "mae" in entry]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        steps, loss, empty = zip(*losses)
        left.semilogy(steps, loss, label="loss")
        left.semilogy(steps, empty, label="of an empty map", color="0.7")
        left.legend()
    if errors:
        steps, mae, rmse = zip(*errors)
        right.plot(steps, mae, "o-", label="MAE")
        right.plot(steps, rmse, "o-", label="RMSE")
        right.legend()
    left.set(title="training", xlabel="step")
    right.set(title="validation", xlabel="step", ylabel="heads", ylim=(0, None))
    figure.savefig(out, dpi=120)
