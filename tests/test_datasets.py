"""What the readers promise of good and malformed annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from csrnet_hub.datasets import DatasetError, Sample, read_dataset
from csrnet_hub.datasets.sample import as_heads, heads_in_mask


def write_heads(path: Path, heads: np.ndarray) -> None:
    """A .mat as the data set has it: image_info{1,1}.location and .number."""
    record = np.zeros((1, 1), dtype=[("location", object), ("number", object)])
    record[0, 0] = (np.asarray(heads, dtype=float), np.array([[len(heads)]]))
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = record
    savemat(path, {"image_info": cell})


def write_part(folder: Path, counts: list[int], annotations: str = "ground-truth") -> Path:
    """A ShanghaiTech part with pictures of 96 x 72 pixels of noise."""
    rng = np.random.default_rng(0)
    data = folder / "train_data"
    (data / "images").mkdir(parents=True)
    (data / annotations).mkdir()
    for number, count in enumerate(counts, start=1):
        pixels = rng.integers(0, 256, (72, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / "images" / f"IMG_{number}.jpg")
        heads = rng.random((count, 2)) * (96, 72)
        write_heads(data / annotations / f"GT_IMG_{number}.mat", heads)
    return folder


def read_shanghaitech(part: Path, split: str) -> list[Sample]:
    return read_dataset(part, "shanghaitech", split)


@pytest.mark.parametrize("annotations", ["ground-truth", "ground_truth"])
def test_both_spellings_of_the_folder_are_read(tmp_path: Path, annotations: str) -> None:
    samples = read_shanghaitech(write_part(tmp_path / "p", [3, 1, 0], annotations), "train")
    assert [sample.name for sample in samples] == ["IMG_1", "IMG_2", "IMG_3"]
    assert [sample.heads.shape for sample in samples] == [(3, 2), (1, 2), (0, 2)]
    assert samples[0].heads.dtype == np.float32


def test_images_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    samples = read_shanghaitech(write_part(tmp_path / "p", [1] * 11), "train")
    assert [sample.name for sample in samples] == [f"IMG_{i}" for i in range(1, 12)]


@pytest.mark.filterwarnings("error")
def test_places_far_away_are_outside_a_mask_or_named_where_float32_has_none() -> None:
    mask = np.ones((4, 6), bool)
    mask[0, 5] = False
    heads = [(0, 0), (5.9, 0.9), (5.9, 1), (6, 1), (-0.1, 1), (1e30, 1), (1, -1e30), (np.nan, 1)]
    assert np.flatnonzero(heads_in_mask(heads, mask)).tolist() == [0, 2]
    with pytest.raises(DatasetError, match="here: some heads are not finite"):
        as_heads([[1e300, 1]], "here")


def test_a_folder_that_is_no_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give the folder of a part"):
        read_shanghaitech(tmp_path, "train")
    with pytest.raises(DatasetError, match="no split"):
        read_shanghaitech(tmp_path, "dev")
    (tmp_path / "train_data" / "images").mkdir(parents=True)
    with pytest.raises(DatasetError, match="ground-truth or ground_truth"):
        read_shanghaitech(tmp_path, "train")
    (tmp_path / "train_data" / "ground_truth").mkdir()
    with pytest.raises(DatasetError, match="holds no pictures"):
        read_shanghaitech(tmp_path, "train")
