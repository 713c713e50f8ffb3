"""Plans of sweeps: the runs that they mean, and the mistakes that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zoo import UnknownNameError, UsageError, ZooError
from zoo_harness.sweeps.plan import Plan, changes_of, read_plan

TWO = {"backbones": ["timm:test_resnet", "timm:test_vit"], "datasets": ["digits"]}


def plan_of(table: dict[str, Any], *changes: str) -> Plan:
    return read_plan(table, changes_of(changes), Path("out"))


def test_every_combination_is_a_run_and_the_seed_is_not_in_the_digest() -> None:
    plan = plan_of({**TWO, "seeds": [0, 1], "learning_rate": [0.1, 0.01], "epochs": 3})
    assert len({run.key for run in plan.runs}) == len(plan.runs) == 8
    assert {(run.backbone, run.seed, run.options["learning_rate"]) for run in plan.runs} == {
        (name, seed, rate) for name in TWO["backbones"] for seed in (0, 1) for rate in (0.1, 0.01)
    }
    first, other = (run for run in plan.runs if run.backbone == "timm:test_vit" and run.options["learning_rate"] == 0.1)
    assert first.key == f"timm-test_vit-digits-s0-{first.key[-8:]}"
    assert other.key == f"timm-test_vit-digits-s1-{first.key[-8:]}"
    assert first.path == Path("out").absolute() / first.key


def test_a_default_that_is_written_out_and_a_cache_change_no_name() -> None:
    names = [plan_of({**TWO, **more}).runs[0].key for more in ({}, {"order": 2}, {"cache": "host"}, {"order": 3})]
    assert names[0] == names[1] == names[2] != names[3]


def test_runs_that_share_a_frozen_part_stand_together() -> None:
    plan = plan_of({**TWO, "seeds": [0, 1], "learning_rate": [0.1, 0.01]}, "runs.a.epochs=[1,2]", "runs.b.views=2")
    groups = [run.group for run in plan.runs]
    assert groups == sorted(groups, key=groups.index)  # each group is one block
    assert len(set(groups)) == 2 + 4  # without views one group for a backbone, with views one for each seed too
    assert {run.group for run in plan_of({**TWO, "unfreeze": "*"}).runs} == {""}


def test_names_may_be_globs_and_texts_with_commas() -> None:
    plan = plan_of({"backbones": "efficientnet_lite[01], resnet18", "datasets": "digits", "seeds": "3,4"})
    assert [(run.backbone, run.seed) for run in plan.runs] == [
        (name, seed) for name in ("efficientnet_lite0", "efficientnet_lite1", "resnet18") for seed in (3, 4)
    ]


def test_excluded_runs_are_left_out() -> None:
    rules = [{"backbone": "*vit", "seed": [1, 2]}, {"epochs": 9}]
    plan = plan_of({**TWO, "seeds": [0, 1, 2], "epochs": [1, 9], "exclude": rules})
    assert [(run.backbone, run.seed, run.options["epochs"]) for run in plan.runs] == [
        *(("timm:test_resnet", seed, 1) for seed in (0, 1, 2)),
        ("timm:test_vit", 0, 1),
    ]


def test_parts_have_commands_and_a_change_at_the_top_is_for_all_of_them(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'datasets = ["digits"]\nnext = "zoo compare {out}"\nepochs = 5\n'
        '[runs.scratch]\ncommand = "train"\nbackbones = ["timm:test_vit"]\nepochs = 7\nlimit = 9\n'
        '[runs.si]\ncommand = "layers"\nof = "scratch"\nlast = true\n'
    )
    plan = read_plan(file, changes_of(["limit=3", "runs.scratch.weights=random"]), None)
    trained, scored = plan.runs
    assert (trained.command, trained.options) == ("train", {"epochs": 7, "limit": 3, "weights": "random"})
    assert (scored.command, scored.options) == ("layers", {"last": True, "limit": 3})
    assert (scored.depends_on, scored.backbone) == (trained.key, trained.folder)
    assert (plan.out, plan.next) == (Path("runs/study").absolute(), ("zoo compare {out}",))


def test_a_ranking_gives_its_best_tier(tmp_path: Path) -> None:
    import zoo

    names = ["timm:test_resnet", "timm:test_vit"]
    found = zoo.rank("digits", names, weights="random", per_class=2, scores="si", out=tmp_path / "rank")
    best = [row.name for row in found.rows if row.tier == 1]
    assert [run.backbone for run in plan_of({"backbones": f"rank:{tmp_path}/rank", "datasets": "digits"}).runs] == best


@pytest.mark.parametrize(
    ("change", "code", "near"),
    [
        ("epoch=3", "unknown-name", "epochs"),
        ("seed=3", "unknown-name", "seeds"),
        ("out_=x", "unknown-name", "out"),
        ("runs.a.lerning_rate=1", "unknown-name", "learning_rate"),
        ("exclude=[{backbones='x'}]", "unknown-name", "backbone"),
        ("backbones=resnet1", "unknown-name", "resnet18"),
        ("datasets=digit", "unknown-name", "digits"),
        ("command=trein", "option-choice", "train"),
        ("epochs=many", "option-value", None),
        ("seeds=a,b", "plan-value", None),
        ("backbones=rank:nothing", "plan-value", None),
        ("backbones=[]", "plan-empty", None),
        ("epochs", "option-value", None),
    ],
)
def test_mistakes_are_refused_with_the_near_name(change: str, code: str, near: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(TWO, change)
    assert caught.value.code == code
    assert near is None or near in caught.value.facts["near"]


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text("backbones = [")
    for path, code in ((tmp_path / "plan.toml", "plan-not-toml"), (tmp_path / "none.toml", "missing-file")):
        with pytest.raises(ZooError) as caught:
            read_plan(path, {}, None)
        assert caught.value.code == code
    with pytest.raises(UnknownNameError):
        plan_of({**TWO, "runs": {"a": {"command": "layers", "of": "b"}}})
