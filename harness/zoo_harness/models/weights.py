"""Read weights from a source, check that they fit the network, and load them into the network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.backbone import Backbone
from zoo.errors import PluginError, WeightsError, ZooError
from zoo.text import one_line
from zoo.weights import LoadedWeights, WeightSource
from zoo_harness.models.keras_weights import named_as_in, network_of
from zoo_harness.models.tensor_files import check_finite, form_of, read_tensors
from zoo_harness.models.weight_files import KERAS_SUFFIXES, WeightFiles
from zoo_harness.models.weight_source import failures_by_plugin
from zoo_harness.records.checkpoint_choice import kept_by_run, run_of_weights
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import KeptCheckpoint, RunRecord, WeightsRecord
from zoo_harness.util.safe_files import read_regular

_LARGEST_CONFIGURATION = 32 * 2**20  # bytes; a config with the names of 21,000 classes has about 1,000,000


def load_weights(network: nn.Module, backbone: Backbone, source: WeightSource) -> WeightsRecord:
    """Load weights into a network with its original classifier; return the record of the weights.

    Classifier weights for another number of classes are ignored, because the classifier is replaced later. Raises
    :class:`~zoo.errors.UnreachableError` if the weight file is neither on this machine nor reachable. Raises
    :class:`~zoo.errors.WeightsError` if the file is damaged, has a wrong digest or belongs to another network. Raises
    :class:`~zoo.errors.PluginError` if a plugin's weight source fails.
    """
    reader = _Reader(backbone=backbone.name, network=network.state_dict())
    with failures_by_plugin(backbone, source):
        with torch.random.fork_rng(devices=[]):
            loaded: object = source.read(reader)
        if not isinstance(loaded, LoadedWeights):
            raise PluginError(f"read() returned {loaded!r:.80}; expected zoo.LoadedWeights", code="plugin-return")
        if loaded.tensors is not None:
            heads = [part.path for part in backbone.head.parts]
            network.load_state_dict(_fitting(loaded, source, reader.network, heads), strict=False)
        return _record(loaded, backbone, source, reader)


@dataclass(frozen=True, kw_only=True)
class _Reader(WeightFiles):
    """Implement :class:`zoo.weights.WeightReader`, which documents the methods."""

    network: Mapping[str, Tensor]

    def read_file(
        self, path: Path, *, sha256: str | None = None, md5: str | None = None, by_order: bool = False
    ) -> dict[str, Tensor]:
        self.verify(path, sha256=sha256, md5=md5)
        if found := kept_by_run(path):
            return _read_kept(path, *found, self)
        tensors = read_tensors(path)
        if by_order:
            return _match_by_order(path, tensors, self.network)
        return named_as_in(self.network, tensors) if path.suffix in KERAS_SUFFIXES else tensors


def _read_kept(path: Path, record: RunRecord, kept: KeptCheckpoint, reader: WeightFiles) -> dict[str, Tensor]:
    """Read the tensors of a kept checkpoint, and read the tensors that were not trained from the main checkpoint."""
    main = run_of_weights(path) / CHECKPOINT
    if not main.is_file():
        message = f"{path} has only the trained tensors of its run, and {main} is missing; expected both files"
        raise WeightsError(message, code="checkpoint-missing", path=str(main))
    reader.verify(path, sha256=kept.sha256)
    reader.verify(main, sha256=record.checkpoint_sha256)
    return read_tensors(main) | read_tensors(path)


def _record(loaded: LoadedWeights, backbone: Backbone, source: WeightSource, reader: _Reader) -> WeightsRecord:
    declared, path = source == backbone.weights, loaded.path
    found = kept_by_run(path) if path else None
    return WeightsRecord(
        kind=source.kind,
        declared=declared,
        source=loaded.origin,
        filename=path.name if path else None,
        revision=loaded.revision,
        sha256=reader.sha256(path) if path else None,
        bytes=path.stat().st_size if path else None,
        license=backbone.license if declared and loaded.tensors is not None else None,
        epoch=found[1].epoch if found else None,
        main_sha256=found[0].checkpoint_sha256 if found else None,
    )


def _fitting(
    loaded: LoadedWeights, source: WeightSource, expected: Mapping[str, Tensor], heads: Iterable[str]
) -> dict[str, Tensor]:
    """Return the tensors to load, after checking that names and shapes fit the network.

    Only tensors of the classifiers at the paths ``heads`` may be missing or have another number of classes than the
    network.
    """
    given = loaded.tensors or {}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            message = f"read() returned a {type(value).__name__} as {name!r:.80}; expected tensors"
            raise PluginError(message, code="plugin-return")
    where = loaded.path or source.describe()
    if faults := _differences(given, expected, tuple(f"{head}." for head in heads)):
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(
            f"{where} does not fit the network: {'; '.join(faults[:3])}{more}{_whose(loaded)}",
            code="weights-mismatch",
            path=str(where),
        )
    check_finite(where, given)
    return {
        name: given[name] for name, tensor in expected.items() if name in given and given[name].shape == tensor.shape
    }


def _differences(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], heads: tuple[str, ...]) -> list[str]:
    differing = [
        f"{_shown(name)}: the file has {form_of(given[name])}, the network {form_of(tensor)}"
        for name, tensor in expected.items()
        if name in given and not _fits(given[name], tensor, is_head=name.startswith(heads))
    ]
    missing = [
        f"{name}: missing"
        for name in expected
        if name not in given and not name.startswith(heads) and not name.endswith("num_batches_tracked")
    ]
    unexpected = [
        f"{_shown(name)}: not in the network" for name in given if name not in expected and not name.startswith(heads)
    ]
    return [*differing, *missing, *unexpected]


def _shown(name: str) -> str:
    """Shorten a tensor name and remove control characters, because untrusted files may contain any name."""
    return one_line(name)[:80]


def _whose(loaded: LoadedWeights) -> str:
    """Return the end of an error message: the network that a file's Keras layers or ``config.json`` name."""
    path = loaded.path
    if path is not None and path.suffix in KERAS_SUFFIXES:
        whose = network_of(name.rpartition(".")[0].replace(".", "_") for name in loaded.tensors or {})
        return f"; by its layers it is {whose}" if whose else ""
    try:
        file = run_of_weights(path) / "config.json" if path else None
        content = read_regular(file, _LARGEST_CONFIGURATION, follow_links=True) if file else b"{}"
        configuration = json.loads(content)
        made_by, size = configuration["zoo"], configuration.get("pretrained_cfg", {}).get("input_size", ())
        images = f", input size {size[1]!s:.9}x{size[2]!s:.9}" if len(size) == 3 else ""
        return " " + one_line(f"(from a run of {made_by['backbone']!s:.64}, recipe {made_by['recipe']!s:.64}{images})")
    except (ZooError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _fits(given: Tensor, expected: Tensor, *, is_head: bool) -> bool:
    if expected.is_floating_point() and not given.is_floating_point():  # for example quantised weights
        return False
    if is_head:  # the file may have another number of classes, but not another input width
        return given.shape[1:] == expected.shape[1:]
    return given.shape == expected.shape


def _match_by_order(path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    faults = [
        f"tensor {given_name!r:.80} is {form_of(tensor)}; the network has {name!r} at that position, {form_of(wanted)}"
        for (given_name, tensor), (name, wanted) in zip(given.items(), expected.items(), strict=False)
        if tensor.shape != wanted.shape
    ]
    if len(given) != len(expected):
        faults = [f"the file has {len(given)} tensors, the network has {len(expected)}"]
    if faults:
        raise WeightsError(f"{path} does not fit the network: {faults[0]}", code="weights-mismatch", path=str(path))
    return dict(zip(expected, given.values(), strict=True))
