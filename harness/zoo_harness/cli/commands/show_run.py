"""``zoo show RUN``: print the data, settings, scores, checkpoints and disk use of a run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_harness.cli.output import print_facts, print_json
from zoo_harness.cli.run_output import print_checkpoints

if TYPE_CHECKING:
    from zoo_harness.runs.run import Run


def show_run(name: str, *, as_json: bool) -> None:
    """Print a summary of the run in a folder, without reading its weights or changing the folder."""
    from zoo_harness.runs.run import open_run

    run = open_run(name)
    disk = disk_use(run.directory)
    if as_json:
        print_json({"folder": str(run.directory), "disk_bytes": disk, "record": run.record.model_dump(mode="json")})
        return
    _print(run, disk)


def disk_use(directory: Path) -> dict[str, int]:
    """Return the bytes that a run's main checkpoint, other checkpoints, training state and other files take."""
    from zoo_harness.records.file_names import CHECKPOINT, CHECKPOINTS

    use = {CHECKPOINT: 0, f"{CHECKPOINTS}/": 0, "training state": 0, "other files": 0}
    for path in (path for path in directory.rglob("*") if path.is_file()):
        top = path.relative_to(directory).parts[0]
        kind = {CHECKPOINT: CHECKPOINT, CHECKPOINTS: f"{CHECKPOINTS}/"}.get(top, "other files")
        kind = "training state" if top.startswith("training_state.") else kind
        use[kind] += path.stat().st_size
    return {**use, "all": sum(use.values())}


def _print(run: Run, disk: dict[str, int]) -> None:
    from zoo.text import one_line
    from zoo_harness.hub.summary import record_facts
    from zoo_harness.reports.wording import training_in_words
    from zoo_harness.util.byte_sizes import bytes_in_words

    record, settings = run.record, run.record.settings
    done = f"{record.results.epochs_done} of {settings.training.epochs} epochs"
    best = f", the best was epoch {record.results.best_epoch}" if record.results.best_epoch else ""
    training = training_in_words(settings.training, record.dataset.evaluation_name).split("; ")
    sizes = ", ".join(f"{kind} {bytes_in_words(size)}" for kind, size in disk.items() if size)
    facts = [
        ("folder", str(run.directory)),
        ("status", f"{record.status}, {done}{best}"),
        *record_facts(record),
        *(("" if number else "training", part) for number, part in enumerate(training)),
        ("computed", f"seed {settings.seed}, {settings.device}, {settings.precision}"),
        ("command", shlex.join(record.command)),
        ("disk", sizes),
    ]
    print_facts((name, one_line(value)) for name, value in facts)
    print_checkpoints(record)
