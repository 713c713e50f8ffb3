"""The digits data, real and whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_digits

from zoo import DatasetRequest, UsageError, load_registry
from zoo_plugins.digits import load


def test_all_scans_are_there_once_each() -> None:
    loaded = load(DatasetRequest())
    sizes = {name: len(split) for name, split in loaded.splits.items()}
    assert sizes == load_registry().datasets["digits"].sizes
    assert (loaded.source, loaded.revision) == (f"scikit-learn {sklearn.__version__}", sklearn.__version__)
    ours = np.concatenate([loaded.splits["train"].images, loaded.splits["test"].images])
    theirs = load_digits().images
    assert ours.dtype == np.uint8
    assert (ours.min(), ours.max()) == (0, 255)
    assert np.array_equal(np.sort(np.rint(ours / 255 * 16), axis=None), np.sort(theirs, axis=None))


def test_the_split_is_fixed_and_a_fifth_of_each_class() -> None:
    scans = load_digits()
    test = load(DatasetRequest()).splits["test"]
    for digit in range(10):
        of_class = np.flatnonzero(scans.target == digit)
        assert np.sum(np.asarray(test.labels) == digit) == len(of_class) // 5
        fifth = np.rint(scans.images[of_class[4]] * 255 / 16)
        assert np.array_equal(test.images[np.flatnonzero(np.asarray(test.labels) == digit)[0]], fifth)


def test_a_data_dir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data-dir"):
        load(DatasetRequest(data_dir=tmp_path))
