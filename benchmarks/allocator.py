"""Compare the speed of a network with two memory settings: freed memory returns to the system, or the process keeps it.

    python benchmarks/allocator.py [--repeat 8]

Two processes run the same network (EfficientNet-Lite0, inference, 224 pixels) in turn: one with the default settings of
glibc, and one after `zoo_harness.compute.allocator.keep_freed_memory()`. The number of page faults explains the
difference in speed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

WORKER = """
import json, resource, statistics, sys, time
import timm, torch
from zoo_harness.compute.allocator import keep_freed_memory

keep, size, repeat = sys.argv[1] == "kept", int(sys.argv[2]), int(sys.argv[3])
if keep:
    assert keep_freed_memory()
network = timm.create_model("tf_efficientnet_lite0").eval().to(memory_format=torch.channels_last)
images = torch.rand(size, 3, 224, 224).contiguous(memory_format=torch.channels_last)
rates, faults = [], []
with torch.inference_mode():
    for turn in range(repeat + 3):
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        network(images)
        if turn >= 3:
            rates.append(size / (time.perf_counter() - started))
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps([statistics.median(rates), statistics.median(faults), peak]))
"""


def measure(memory: str, batch_size: int, repeat: int) -> tuple[float, float, float]:
    """Return the images per second, page faults per batch and peak memory in GiB of one process."""
    command = [sys.executable, "-c", WORKER, memory, str(batch_size), str(repeat)]
    rate, faults, peak = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rate, faults, peak


def main() -> None:
    """Measure both processes at several batch sizes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=8)
    repeat = parser.parse_args().repeat
    print(f"{'batch':>5} {'memory':>9} {'images/s':>9} {'faults/batch':>13} {'peak GiB':>9} {'ratio':>6}")
    for batch_size in (16, 32, 64):
        plain = measure("returned", batch_size, repeat)
        kept = measure("kept", batch_size, repeat)
        for memory, (rate, faults, peak) in (("returned", plain), ("kept", kept)):
            print(f"{batch_size:5} {memory:>9} {rate:9.0f} {faults:13.0f} {peak:9.2f} {rate / plain[0]:6.2f}")


if __name__ == "__main__":
    main()
