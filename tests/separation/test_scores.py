"""New scores: with an entry of the list and a pure function each, they are everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import zoo
from zoo_harness.cli.main import run
from zoo_harness.evaluation.split_scores import recorded
from zoo_harness.records.run import SplitSeparation, read_run
from zoo_harness.separation.index import separation
from zoo_harness.separation.scores import SCORES, ScoreDefinition

from .brute_force import agreement_by_brute_force, gaussian


def above_chance(near):
    """SI, rescaled so that it is 0 if neighbours are drawn at random."""
    hits = near.same_label.to(torch.float64)
    return (hits - near.chance) / (1 - near.chance), 1


def by_majority(near):
    return 2 * near.same_label > near.order, 1


def errors_by_partners(_counts, _max_count, partners, _seed):
    return 0.25, 0.0 if partners is None else len(partners) / 1000


ADJUSTED = ScoreDefinition("adjusted", "adjusted SI", "SI of {sample}s over chance", above_chance)
MAJORITY = ScoreDefinition(
    "majority",
    "majority SI",
    "fraction of {sample}s that have most of {order} neighbours on their side",
    by_majority,
    has_orders=True,
    errors=errors_by_partners,
)


@pytest.fixture
def new_scores():
    SCORES.extend([ADJUSTED, MAJORITY])
    yield
    del SCORES[-2:]


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_result_its_json_and_its_table():
    features, labels = gaussian(23)
    result = separation(features, labels, 3)
    sizes = np.bincount(labels)
    chance = (sizes * (sizes - 1)).sum() / (150 * 149)
    adjusted = result.scores["adjusted"][1]
    assert adjusted.value == pytest.approx((result.si.value - chance) / (1 - chance))
    assert adjusted.standard_error == pytest.approx(result.si.standard_error / (1 - chance))
    assert adjusted.bootstrap_error == pytest.approx(result.si.bootstrap_error / (1 - chance), rel=0.05)
    assert adjusted.per_class[2] == pytest.approx((result.si.per_class[2] - chance) / (1 - chance))
    assert adjusted.tied == result.si.tied
    majority = result.scores["majority"]
    assert majority[3].value == ((result.soft[3].per_sample > 0.5).double().mean())
    assert (majority[2].standard_error, majority[2].bootstrap_error) == (0.25, 0.15)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["adjusted"]["value"] == adjusted.value
    assert plain["majority"]["2"]["value"] == result.high[2].value
    lines = str(result).splitlines()
    assert "majority SI" in lines[3]
    assert lines[6].split()[-4:-1] == str(majority[3]).split()
    assert lines[8].split()[:2] == ["adjusted", f"{adjusted.value:.4f}"]


@pytest.mark.usefixtures("new_scores")
def test_ties_that_decide_new_scores_are_counted():
    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 4, (40, 2)), rng.integers(0, 3, 40)
    result = separation(features, labels, 4)
    same_label, distances = agreement_by_brute_force(features, labels)
    decided = 0
    for row, distance in zip(same_label, distances, strict=True):
        inner, tied = row[distance < distance[3]], np.sort(row[distance == distance[3]])
        slots = 4 - len(inner)
        ends = {2 * (inner.sum() + part.sum()) > 4 for part in (tied[:slots], tied[len(tied) - slots :])}
        decided += len(ends) > 1
    assert result.scores["majority"][4].tied == decided > 0


@pytest.mark.usefixtures("new_scores")
def test_chance_with_references_is_the_share_of_pairs_with_the_same_label():
    features, labels = gaussian(24)
    options = {"references": features[:50], "reference_labels": labels[:50]}
    result = separation(features[50:], labels[50:], **options)
    chance = (labels[50:, None] == labels[:50]).mean()
    assert result.scores["adjusted"][1].value == pytest.approx((result.si.value - chance) / (1 - chance))


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_metric():
    features, labels = gaussian(25)
    metric = zoo.SeparationMetric(order=3)
    metric.update(features, labels)
    result = separation(features, labels, 3)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert list(found)[-2:] == ["adjusted_si", "majority_si"]
    assert found["adjusted_si"] == result.scores["adjusted"][1].value
    assert found["majority_si"] == result.scores["majority"][3].value


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_output_of_zoo_si(tmp_path, capsys):
    features, labels = gaussian(26)
    np.savez(tmp_path / "features.npz", features=features, labels=labels)
    result = separation(features, labels)
    assert run(["si", str(tmp_path / "features.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adjusted"] == result.scores["adjusted"][1].to_dict()
    assert run(["si", str(tmp_path / "features.npz"), "--classes"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{result}\n")
    assert "centre  adjusted  majority 2\n" in printed


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_a_run_its_card_its_layers_and_its_rescoring(tmp_path, capsys):
    out = tmp_path / "run"
    sample = ["--dataset", "digits", "--per-class", "3"]
    assert run(["eval", "efficientnet_lite0", *sample, "--epochs", "0", "--verbose", "--out", str(out)]) == 0
    printed, card, after = capsys.readouterr().out, (out / "README.md").read_text(), read_run(out).results
    scores = after.separation_after.evaluation.scores
    assert list(scores) == ["si", "high", "soft", "anti", "centre", "adjusted", "majority"]
    assert (
        json.loads((out / "run.json").read_text())["results"]["separation_after"]["evaluation"]["adjusted"]["n"] == 30
    )
    assert "anti  centre  adjusted  majority\n" in printed
    assert f"{scores['adjusted'].value:.4f}    {scores['majority'].value:.4f}\n" in printed
    assert "adjusted SI: SI of images over chance\n" in printed
    assert "| Centre SI | Adjusted SI | Majority SI |\n|---|---|---|---|---|---|---|---|\n" in card
    assert f"| {scores['adjusted'].value:.4f} ± {scores['adjusted'].bootstrap_error:.4f} |" in card
    assert "- **Majority SI**: fraction of images that have most of 2 neighbours on their side.\n" in card
    assert {"adjusted", "majority"} < set(after.layer_curve.layers[3].separation.scores)

    assert run(["eval", str(out), "--epochs", "0", "--verbose"]) == 0
    assert "all 8 results are reproduced" in capsys.readouterr().out
    layers = ["layers", "efficientnet_lite0", *sample, "--pool", "--quiet", "--out", str(tmp_path / "layers")]
    assert run(layers) == 0
    assert "anti 2  centre  adjusted  majority 2" in capsys.readouterr().out


def test_a_record_keeps_the_scores_that_the_list_no_longer_has(new_scores):
    found = recorded(separation(*gaussian(27)))
    del SCORES[-2:]
    try:
        again = SplitSeparation.model_validate_json(found.model_dump_json())
        assert again == found
        assert again.scores["adjusted"] == found.scores["adjusted"]
    finally:
        SCORES.extend([ADJUSTED, MAJORITY])


def test_a_record_of_the_five_scores_has_the_keys_of_earlier_records():
    plain = recorded(separation(*gaussian(28))).model_dump()
    assert [key for key in plain if key not in ("metric", "normalize")] == [
        "order",
        "si",
        "high",
        "soft",
        "anti",
        "centre",
        "duplicates",
        "duplicates_unlike",
    ]
    assert list(plain["soft"]) == ["value", "standard_error", "n", "bootstrap_error", "tied"]


@pytest.mark.parametrize("change", [{"si": {"value": 1.5}}, {"further": 3}, {"high": {"value": float("nan")}}])
def test_a_record_with_impossible_scores_is_refused(change):
    plain = recorded(separation(*gaussian(29))).model_dump()
    changed = {key: {**plain[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    with pytest.raises(ValidationError):
        SplitSeparation.model_validate({**plain, **changed})


def test_every_score_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "separation.md").read_text()
    for each in SCORES:
        assert f"| {each.title}" in text
        assert each.name in text
