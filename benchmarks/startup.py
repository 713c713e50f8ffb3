"""Measure the start-up time of fast commands such as ``zoo list``, relative to the time of importing typer and rich.

    python benchmarks/startup.py [--repeat 25]

The targets for `zoo list` and `zoo --help` are less than 0.25 s, and less than twice the time of `python -c "import
typer, rich"`. The commands take turns, so that a busy machine slows all commands equally. The script compares medians.
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
    """Return the wall time of one run of a command, in seconds."""
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
            if turn >= 2:  # the first turns fill the file cache of the system, and are not measured
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{'command':32} {'median':>9} {'ratio':>7}")
    for name, median in medians.items():
        print(f"{name:32} {1000 * median:6.0f} ms {median / medians[REFERENCE]:7.2f}")


if __name__ == "__main__":
    main()
