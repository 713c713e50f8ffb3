"""Groups of equal rows against dictionaries of tuples."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from zoo_harness.separation.knn import duplicates
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(params=[False, True], ids=["good hash", "bad hash"])
def hashed(request, monkeypatch):
    """Let the first hash functions give many different rows the same hash."""
    hashes = duplicates._hashes
    if request.param:
        monkeypatch.setattr(duplicates, "_hashes", lambda rows, seed: hashes(rows, seed) % (2 if seed < 3 else 2**62))


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("references", [None, 120])
def test_groups_are_the_equal_rows(references):
    rng = np.random.default_rng(0)
    features = rng.integers(-2, 3, (200, 3)).astype(np.float32)
    labels = 10 * rng.integers(0, 4, 200)
    given = torch.from_numpy(features).to(DEVICE)
    groups = Groups(Rows(given, 2**20), torch.from_numpy(labels).to(DEVICE), references)
    rows_of = defaultdict(list)
    for row, values in enumerate(map(tuple, features.tolist())):
        rows_of[values].append(row)
    assert sorted(groups.first.tolist()) == sorted(rows[0] for rows in rows_of.values())
    queries = range(references or 0, 200)
    names = sorted(set(labels.tolist()))
    for rows in rows_of.values():
        group = int(groups.of_row[rows[0]])
        assert {int(groups.of_row[row]) for row in rows} == {group}
        members = [row for row in rows if references is None or row < references]
        begin, size = int(groups.begin[group]), int(groups.size[group])
        assert groups.members[begin : begin + size].tolist() == members
        label_counts = Counter(labels[members].tolist())
        every_label = torch.arange(len(names), device=DEVICE)
        counted = groups.member_labels.rows(torch.full_like(every_label, group), every_label)
        assert counted.tolist() == [label_counts[name] for name in names]
        asked = {names.index(labels[row]) for row in rows if row in queries}
        pairs, entry = groups.query_labels.expand(torch.tensor([group], device=DEVICE))
        assert set(groups.query_labels.label[pairs].tolist()) == asked
        assert len(pairs) == len(asked)
        assert not entry.any()


def test_minus_zero_and_zero_are_equal_rows():
    groups = Groups(Rows(torch.tensor([[0.0], [-0.0], [1.0]]), 2**20), torch.tensor([0, 0, 0]), None)
    assert groups.of_row[0] == groups.of_row[1] != groups.of_row[2]
