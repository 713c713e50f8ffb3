"""The harness is folders in one order: imports point to earlier folders, no modules import each other in a circle.

Every import counts: at the top of a module, inside a function, and under ``if TYPE_CHECKING``.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HARNESS = ROOT / "harness" / "zoo_harness"
TESTS = ROOT / "tests"

# Bottom to top: a module may import from its own folder and from folders that stand earlier.
ORDER = (
    "util",
    "records",
    "compute",
    "separation",
    "data",
    "models",
    "frozen",
    "checkpoints",
    "evaluation",
    "training",
    "ranking",
    "reports",
    "runs",
    "hub",
    "sweeps",
    "api",
    "testing",
    "cli",
)
INDEPENDENT = (("runs", "hub"), ("hub", "runs"), ("data", "separation"), ("separation", "data"))
DOORS = {"zoo/__init__.py": {"zoo_harness.api"}, "zoo/testing.py": {"zoo_harness.testing"}}


def modules() -> dict[str, Path]:
    """Every module of the harness by its dotted name below ``zoo_harness``."""
    found = {}
    for path in sorted(HARNESS.rglob("*.py")):
        parts = path.relative_to(HARNESS).with_suffix("").parts
        if parts[-1] != "__init__":
            found[".".join(parts)] = path
    return found


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the harness that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            names = [str(node.args[0].value)] if isinstance(node.args[0], ast.Constant) else []
        else:
            continue
        for name in names:
            if name.startswith("zoo_harness."):
                below = name.removeprefix("zoo_harness.")
                yield below if below in known else below.rpartition(".")[0]


def edges(known: dict[str, Path]) -> dict[str, set[str]]:
    """Each module with those it imports."""
    return {name: set(imported(ast.parse(path.read_text()), known)) for name, path in known.items()}


def test_every_module_stands_in_a_folder_of_the_order() -> None:
    assert {name.split(".")[0] for name in modules()} <= set(ORDER)


def test_imports_point_to_earlier_folders() -> None:
    rank = {folder: place for place, folder in enumerate(ORDER)}
    against = [
        f"{name} imports {other}"
        for name, others in edges(modules()).items()
        for other in others
        if rank[name.split(".")[0]] < rank[other.split(".")[0]]
        or (name.split(".")[0], other.split(".")[0]) in INDEPENDENT
    ]

    assert against == []


def public_edges(known: dict[str, Path]) -> dict[str, set[str]]:
    """Each module of ``zoo`` and of the harness with those it imports, by full names; ``zoo`` is its ``__init__``."""
    paths = {f"zoo_harness.{name}": path for name, path in known.items()}
    paths |= {f"zoo.{path.stem}": path for path in (ROOT / "zoo").glob("[!_]*.py")}
    paths |= {"zoo": ROOT / "zoo" / "__init__.py", "zoo._lazy": ROOT / "zoo" / "_lazy.py"}
    found: dict[str, set[str]] = {}
    for name, path in paths.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {each if each in paths else node.module for each in whole}
        found[name] = targets & paths.keys()
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(public_edges(modules())).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(reversed(error.args[1]))}")


def test_the_reader_of_imports_sees_lazy_and_typing_ones() -> None:
    known = {"a.b": Path(), "a.c": Path(), "d": Path()}
    source = (
        "from zoo_harness.a import b\nif TYPE_CHECKING:\n    from zoo_harness.a.c import X\n"
        "def f():\n    import zoo_harness.d\n    importlib.import_module('zoo_harness.a.c')\n"
    )

    assert list(imported(ast.parse(source), known)) == ["a.b", "a.c", "d", "a.c"]


def test_the_file_of_a_folder_says_its_purpose_in_a_line_and_nothing_else() -> None:
    wordy = []
    for path in sorted(HARNESS.rglob("__init__.py")):
        tree = ast.parse(path.read_text())
        docstring = ast.get_docstring(tree)
        if path.parent != HARNESS and (len(tree.body) != 1 or not docstring or "\n" in docstring):
            wordy.append(str(path.relative_to(ROOT)))

    assert wordy == []


def test_zoo_reaches_the_harness_by_two_doors_only() -> None:
    reached = defaultdict(set)
    for path in sorted((ROOT / "zoo").glob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            named = node.module if isinstance(node, ast.ImportFrom) else None
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("zoo_harness"):
                named = node.value
            if named and named.startswith("zoo_harness"):
                reached[str(path.relative_to(ROOT))].add(named)

    assert dict(reached) == DOORS


def test_every_test_module_mirrors_a_module() -> None:
    known = modules()
    strays = []
    for path in sorted(TESTS.rglob("test_*.py")):
        folders = path.relative_to(TESTS).parts
        if folders[0] not in ORDER:
            continue
        name = ".".join((*folders[:-1], path.stem.removeprefix("test_")))
        if name not in known:
            strays.append(str(path.relative_to(ROOT)))

    assert strays == []


def test_every_module_has_tests_or_says_which_tests_reach_it() -> None:
    untested = [name for name in modules() if not mirror(name).is_file() and name not in TESTED_THROUGH]
    needless = [name for name in TESTED_THROUGH if name not in modules() or mirror(name).is_file()]
    missing = [through for through in TESTED_THROUGH.values() if not (TESTS / through).is_file()]

    assert (untested, needless, missing) == ([], [], [])


def mirror(name: str) -> Path:
    """Where the tests of a module stand."""
    *folders, module = name.split(".")
    return TESTS.joinpath(*folders, f"test_{module}.py")


# Modules without a test module of their own, and the tests that reach them.
TESTED_THROUGH = {
    "api": "runs/test_fine_tune.py",
    "checkpoints.foreign": "checkpoints/test_load.py",
    "checkpoints.loaded_model": "checkpoints/test_save.py",
    "checkpoints.opened": "checkpoints/test_load.py",
    "checkpoints.tensor_checks": "checkpoints/test_load.py",
    "cli.commands.card": "cli/commands/test_eval.py",
    "cli.commands.list": "cli/test_app.py",
    "cli.commands.report": "runs/test_report.py",
    "cli.commands.show": "cli/test_app.py",
    "cli.main": "cli/test_app.py",
    "cli.options": "cli/test_app.py",
    "compute.allocator": "compute/test_device.py",
    "compute.context": "training/test_loop.py",
    "compute.sync_batch_norm": "compute/test_distributed.py",
    "data.batches": "training/test_loop.py",
    "data.decoding": "data/test_loading.py",
    "data.image_files": "cli/commands/test_predict.py",
    "data.opened": "data/test_loading.py",
    "data.subset": "data/test_loading.py",
    "data.transform": "models/test_preprocessing.py",
    "frozen.cache.fill": "runs/test_frozen_features.py",
    "frozen.partition.build": "frozen/partition/test_partition.py",
    "frozen.partition.cut": "frozen/partition/test_partition.py",
    "frozen.partition.side_effects": "frozen/partition/test_partition.py",
    "frozen.partition.summary": "plugins/test_partition_backbones.py",
    "frozen.partition.trace": "frozen/partition/test_partition.py",
    "frozen.partition.verify": "frozen/partition/test_partition.py",
    "hub.locate": "cli/commands/test_pull.py",
    "hub.publish": "cli/commands/test_publish.py",
    "hub.summary": "cli/commands/test_pull.py",
    "models.modules": "models/test_surgery.py",
    "models.trainable_model": "training/test_loop.py",
    "models.tuned_network": "models/test_surgery.py",
    "models.weight_files": "models/test_weights.py",
    "models.weight_source": "zoo/test_weights.py",
    "records.comparison": "cli/commands/test_compare.py",
    "records.file_names": "hub/test_publication.py",
    "records.option_checks": "cli/commands/test_eval.py",
    "records.subset": "data/test_loading.py",
    "records.untrusted": "checkpoints/test_load.py",
    "reports.checkpoint_table": "reports/test_run_card.py",
    "reports.backbone_summary": "cli/test_app.py",
    "reports.comparison": "cli/commands/test_compare.py",
    "reports.front_matter": "reports/test_run_card.py",
    "reports.markdown": "reports/test_run_card.py",
    "reports.page.columns": "reports/page/test_render.py",
    "reports.page.curves": "reports/page/test_render.py",
    "reports.page.entries": "reports/page/test_render.py",
    "reports.page.rankings": "runs/test_report.py",
    "reports.plots.confusion": "evaluation/test_confusion.py",
    "reports.separation_tables": "reports/test_run_card.py",
    "reports.wording": "reports/test_run_card.py",
    "runs.compare": "cli/commands/test_compare.py",
    "runs.features_request": "cli/commands/test_features.py",
    "runs.features_run": "cli/commands/test_features.py",
    "records.json_lines": "records/test_steps.py",
    "records.features": "cli/commands/test_features.py",
    "separation.feature_files": "cli/commands/test_features.py",
    "separation.feature_metadata": "cli/commands/test_features.py",
    "runs.directory": "cli/commands/test_eval.py",
    "runs.layer_run": "cli/commands/test_layers.py",
    "runs.plan": "runs/test_frozen_features.py",
    "runs.provenance": "runs/test_fine_tune.py",
    "runs.reporter": "runs/test_fine_tune.py",
    "ranking.hit_bits": "cli/commands/test_rank.py",
    "ranking.readout": "cli/commands/test_rank.py",
    "ranking.score": "ranking/test_log_me.py",
    "ranking.scores": "cli/commands/test_rank.py",
    "records.rank": "cli/commands/test_rank.py",
    "reports.plots.ranking": "cli/commands/test_rank.py",
    "runs.rank_accuracies": "cli/commands/test_rank.py",
    "runs.rank_options": "cli/commands/test_rank.py",
    "runs.rank_request": "cli/commands/test_rank.py",
    "runs.rank_run": "cli/commands/test_rank.py",
    "runs.request": "runs/test_fine_tune.py",
    "runs.rescore": "cli/commands/test_rescore.py",
    "runs.session": "runs/test_resume.py",
    "separation.bookkeeping": "separation/test_tables.py",
    "separation.file_kinds": "separation/test_files.py",
    "separation.knn.neighbours": "separation/knn/test_search.py",
    "separation.label_agreement": "separation/test_scores.py",
    "sweeps.display": "sweeps/test_scheduler.py",
    "sweeps.estimates": "sweeps/test_sweep.py",
    "sweeps.worker": "sweeps/test_pools.py",
    "cli.commands.sweep": "sweeps/test_sweep.py",
    "testing": "zoo/test_testing.py",
    "util.digests": "models/test_tensor_files.py",
    "util.entry_function": "models/test_build.py",
    "util.file_lock": "frozen/cache/test_activation_cache.py",
    "util.invocation": "runs/test_fine_tune.py",
    "util.progress": "training/test_loop.py",
}
