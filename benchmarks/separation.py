"""Compare the time of zoo's exact search for nearest neighbours with the time of other exact searches.

    python benchmarks/separation.py [--data fashion lite0 wide smooth] [--orders 1 5] [--peers faiss sklearn cdist]

The data are the raw images of Fashion-MNIST (60,000 x 784, uint8), their features from the pretrained
EfficientNet-Lite0 (60,000 x 1,280), random images with the spectrum of natural images, and smooth random images (both
50,000 x 3,072). The other searches are faiss-cpu's IndexFlatL2, scikit-learn's brute force, and torch.cdist if its
matrix fits into memory. The other searches only search the neighbours of a `--share` of the rows, and the script
extrapolates their time to all rows. zoo's search runs on all rows. The script compares zoo's neighbours of 500 rows
with a brute-force search in float64. faiss-cpu is not a dependency of zoo; install it with pip install faiss-cpu.
"""

from __future__ import annotations

import argparse
import gzip
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.separation.knn.search import nearest_neighbours

FASHION = Path("/usr/share/datasets/fashion-mnist")
CHECKED = 500


def fashion() -> Tensor:
    """Return Fashion-MNIST's training images, (60,000, 784) uint8, from Debian's package dataset-fashion-mnist."""
    content = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())
    return torch.from_numpy(np.frombuffer(content, np.uint8)[16:].reshape(-1, 784).copy())


def lite0() -> Tensor:
    """Return EfficientNet-Lite0's features of Fashion-MNIST images at 64 pixels, (60,000, 1,280) float32."""
    from zoo import Preprocessing, load_registry
    from zoo_harness.data.transform import BatchTransform
    from zoo_harness.models.build import build_network
    from zoo_harness.models.weights import load_weights

    backbone = load_registry().backbone("efficientnet_lite0")
    network = build_network(backbone.name, backbone.network)
    load_weights(network, backbone, backbone.weights)
    transform = BatchTransform(Preprocessing(input_size=(64, 64)))
    with torch.inference_mode():
        parts = fashion().view(-1, 28, 28).split(256)
        return torch.cat(
            [network.forward_head(network.forward_features(transform(part)), pre_logits=True) for part in parts]
        )


def wide() -> Tensor:
    """Return 50,000 random images of 32 x 32 x 3 with the spectrum of natural images, (50,000, 3,072) float32.

    Amplitudes fall as one over the frequency, channels are correlated, and contrast differs between images.
    """
    generator = torch.Generator().manual_seed(0)
    frequency = (torch.fft.fftfreq(32)[:, None].square() + torch.fft.rfftfreq(32).square()).sqrt()
    channels = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.4, 0.0], [0.85, 0.3, 0.4]])
    parts = []
    for _ in range(10):
        spectrum = torch.fft.rfft2(torch.randn(5000, 3, 32, 32, generator=generator)) / frequency.clamp(min=1 / 32)
        images = torch.einsum("ij,bjhw->bihw", channels, torch.fft.irfft2(spectrum, s=(32, 32)))
        parts.append((images * torch.randn(5000, 1, 1, 1, generator=generator).mul_(0.35).exp_()).flatten(1))
    return torch.cat(parts)


def smooth() -> Tensor:
    """Return 50,000 smooth random images: 192 equally strong directions and a little noise, (50,000, 3,072) float32."""
    return smooth_images(50_000, 3, 32)


def smooth_images(count: int, channels: int, size: int) -> Tensor:
    """Return random images with noise, (count, channels * size^2) float32."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, channels, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return (images + 0.1 * torch.randn(images.shape, generator=generator)).flatten(1)


def ours(features: Tensor, order: int, _share: float) -> tuple[float, Tensor]:
    """Return the seconds of zoo's search for all rows, and the neighbours."""
    labels = torch.zeros(len(features), dtype=torch.int64)
    started = time.perf_counter()
    found = nearest_neighbours(features, labels, order).indices
    return time.perf_counter() - started, found


def faiss(features: Tensor, order: int, share: float) -> tuple[float, None]:
    """Return the seconds of IndexFlatL2 for all rows, extrapolated from a share of the rows."""
    import faiss as library

    rows = features.float().numpy()
    index = library.IndexFlatL2(rows.shape[1])
    index.add(rows)
    asked = rows[: int(len(rows) * share)]
    return _timed(lambda: index.search(asked, order + 1)) / share, None


def sklearn(features: Tensor, order: int, share: float) -> tuple[float, None]:
    """Return the seconds of scikit-learn's brute force for all rows, extrapolated from a share of the rows."""
    from sklearn.neighbors import NearestNeighbors

    rows = features.float().numpy()
    search = NearestNeighbors(n_neighbors=order + 1, algorithm="brute").fit(rows)
    asked = rows[: int(len(rows) * share)]
    return _timed(lambda: search.kneighbors(asked)) / share, None


def cdist(features: Tensor, order: int, share: float) -> tuple[float, None]:
    """Return the seconds of torch.cdist and topk for all rows, extrapolated from a share, in tiles of 2,000 rows."""
    rows = features.float()

    def search() -> None:
        for part in rows[: int(len(rows) * share)].split(2000):
            torch.cdist(part, rows).topk(order + 1, largest=False)

    return _timed(search) / share, None


def wrong(features: Tensor, found: Tensor) -> int:
    """Return how many of 500 rows have other neighbours than a float64 brute-force search finds."""
    chosen = torch.arange(0, len(features), max(1, len(features) // CHECKED))[:CHECKED]
    wrong_rows = 0
    for part in chosen.split(max(1, 2**27 // len(features))):
        asked = features[part].double()
        distances = torch.cat(
            [
                torch.cdist(asked, block.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
                for block in features.split(5000)
            ],
            1,
        )
        distances[torch.arange(len(part)), part] = torch.inf
        nearest = distances.topk(found.shape[1], largest=False).values
        # Sums in another order differ in the last bits, so only larger differences of distances count as wrong.
        same = torch.isclose(nearest, distances.gather(1, found[part]), rtol=1e-12, atol=0)
        wrong_rows += int((~same.all(1)).sum())
    return wrong_rows


def _timed(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print the table."""
    data = {"fashion": fashion, "lite0": lite0, "wide": wide, "smooth": smooth}
    peers = {"faiss": faiss, "sklearn": sklearn, "cdist": cdist}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=data, default=list(data))
    parser.add_argument("--peers", nargs="*", choices=peers, default=list(peers))
    parser.add_argument("--orders", nargs="+", type=int, default=[1, 5])
    parser.add_argument("--share", type=float, default=0.1)
    options = parser.parse_args()
    keep_freed_memory()
    _print_row("data", "rows x columns", "order", "search", "seconds", "ratio", "wrong", "peak GiB")
    for name in options.data:
        features = data[name]()
        shape = f"{len(features):,} x {features.shape[1]:,}"
        for order in options.orders:
            own, found = ours(features, order, 1.0)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            mistakes = str(wrong(features, found))
            _print_row(name, shape, str(order), "ours", f"{own:.1f}", "1.00", mistakes, f"{peak:.2f}")
            for peer in options.peers:
                seconds, _nothing = peers[peer](features, order, options.share)
                _print_row(name, shape, str(order), peer, f"{seconds:.1f}", f"{seconds / own:.2f}", "", "")


def _print_row(*cells: str) -> None:
    widths = (8, 15, 5, 8, 8, 6, 6, 9)
    print(" ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)), flush=True)


if __name__ == "__main__":
    main()
