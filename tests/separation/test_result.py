"""A result as JSON, as a pickle, and as a table."""

from __future__ import annotations

import json
import pickle

import torch

from zoo_harness.separation.index import separation

from .brute_force import gaussian


def test_a_result_is_ready_for_json_and_survives_pickling():
    features, labels = gaussian(6)
    result = separation(features, labels, 3, per_class=20, seed=4)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain == result.to_dict()
    assert plain["classes"] == {"0": 20, "1": 20, "2": 20, "3": 20}
    assert plain["high"]["3"]["value"] == result.high[3].value
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    assert again.to_dict() == plain
    assert torch.equal(again.soft[2].per_sample, result.soft[2].per_sample)


def test_the_table():
    features, labels = gaussian(7, n=40)
    features[1] = features[0]
    labels[:2] = 0, 1
    result = separation(features, labels)
    lines = str(result).splitlines()
    assert lines[:2] == [f"SI {result.si}", "40 samples of 4 classes against each other, euclidean distance"]
    assert lines[3].split("  ")[-1] == "decided by a tie"
    assert lines[5].split()[1:4] == [f"{result.high[2].value:.4f}", "±", f"{result.high[2].bootstrap_error:.4f}"]
    assert lines[6].split()[:2] == ["centre", f"{result.centre.value:.4f}"]
    assert len({len(line) for line in lines[3:7]}) == 1
    assert lines[-1].endswith("2 samples equal another sample, 2 with a different label.")
