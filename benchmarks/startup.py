"""Start-up of the commands that must feel instant, as ratios to importing typer and rich in the same run.

    python benchmarks/startup.py [--repeat 25]

Targets: `zoo list` and `zoo --help` under 0.25 s, and under twice the time of `python -c "import typer, rich"`. The
commands take turns, so that a busy machine slows all of them alike; medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ZOO = str(Path(sys.executable).with_name("zoo"))
REFERENCE = 'python -c "import typer, rich"'
COMMANDS = {
    'python -c "pass"': [sys.executable, "-c", "pass"],
    REFERENCE: [sys.executable, "-c", "import typer, rich"],
    "zoo --help": [ZOO, "--help"],
    "zoo --version": [ZOO, "--version"],
    "zoo list": [ZOO, "list"],
    "zoo list --json": [ZOO, "list", "--json"],
    "zoo datasets": [ZOO, "datasets"],
    "zoo plugins": [ZOO, "plugins"],
}


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Run every command in turn, several times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=25)
    repeat = parser.parse_args().repeat
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(repeat + 2):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if turn >= 2:  # the first turns warm the file cache
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'command':32} {'median':>9} {'ratio':>7}")
    for name, median in medians.items():
        print(f"{name:32} {1000 * median:6.0f} ms {median / medians[REFERENCE]:7.2f}")


if __name__ == "__main__":
    main()
