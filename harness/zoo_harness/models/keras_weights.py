"""Read tensors and their names from the H5 files of Keras applications, with h5py and without Keras.

A file may be malicious. Only uncompressed datasets inside the file are read, after a check of their size. A file is
refused if its datasets together are larger than the file. The attribute ``model_config`` is never read, because it
could name code to run.

The supported layout is Keras' legacy H5 format, which Keras 3 still writes for ``model.save("net.h5")``. The attribute
``layer_names`` lists one group for each layer, and each group's attribute ``weight_names`` lists the datasets of the
group. Source: ``keras/src/legacy/saving/legacy_h5_format.py`` of Keras 3.15.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.registry import explain
from zoo_harness.models.weight_files import SAVE_AGAIN, check_h5, not_h5

if TYPE_CHECKING:
    import h5py


_PARAMETERS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

_MOST_NAMES = 10_000  # limit for one attribute; the largest Keras application has about 1,000 layers
_LONGEST_NAME = 1_000
_FLOATS = ("float16", "float32", "float64")

# Each layer occurs in the network of its line, but not in the networks of the lines below.
_TELLTALE_LAYERS = {
    "conv4_block36_preact_bn": "ResNet152V2",
    "conv4_block23_preact_bn": "ResNet101V2",
    "conv4_block6_preact_bn": "ResNet50V2",
    "conv4_block48_1_conv": "DenseNet201",
    "conv5_block32_1_conv": "DenseNet169",
    "conv5_block16_1_conv": "DenseNet121",
    "conv4_block36_3_conv": "ResNet152",
    "conv4_block23_3_conv": "ResNet101",
    "conv4_block6_3_conv": "ResNet50",
    "block5_conv4": "VGG19",
    "block5_conv3": "VGG16",
}


def read_keras_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a Keras H5 file in torch's layout, named ``layer.weight``, ``layer.running_mean``, ...

    Convolution kernels become ``(out, in, height, width)``, dense kernels ``(out, in)``, and depthwise kernels
    ``(in * multiplier, 1, height, width)``. Raises :class:`~zoo.errors.WeightsError` if a file is damaged, has
    another layout or links to other files, and if h5py is not installed.
    """
    check_h5(path)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _tensors(path, file)
    except WeightsError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ValueError and others for damaged files
        raise _damaged(path, f"damaged or incomplete ({explain(error)}); download the file again") from error


def named_as_in(network: Iterable[str], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of Keras layers to the parameter names of a network; unmatched tensors keep their names.

    A Keras layer matches the torch module whose path, with every dot replaced by ``_``, equals the layer's name.

    >>> list(named_as_in(["conv5.block1.1_bn.weight"], {"conv5_block1_1_bn.weight": torch.ones(2)}))
    ['conv5.block1.1_bn.weight']
    """
    paths = {}
    for name in network:
        path, _, parameter = name.rpartition(".")
        paths[f"{path.replace('.', '_')}.{parameter}"] = name
    return {paths.get(name, name): tensor for name, tensor in tensors.items()}


def network_of(layers: Iterable[str]) -> str | None:
    """Return the name of the Keras ResNet, DenseNet or VGG that has these layers, or ``None`` if no network matches.

    >>> network_of(["block5_conv3", "block5_conv4"])
    "Keras' VGG19"
    """
    present = set(layers)
    return next((f"Keras' {name}" for layer, name in _TELLTALE_LAYERS.items() if layer in present), None)


def _tensors(path: Path, file: h5py.File) -> dict[str, Tensor]:
    root, left = _root(path, file), path.stat().st_size
    tensors: dict[str, Tensor] = {}
    for layer in _names(path, root, "layer_names"):
        group = _inside(path, root, layer, "group")
        for name in _names(path, group, "weight_names"):
            dataset = _inside(path, group, name, "dataset")
            left -= _size_of_plain(path, name, dataset)
            if left < 0:
                raise _damaged(path, f"tensor {name!r} and the tensors before it need more bytes than the file has")
            parameter = _parameter(path, layer, name)
            if parameter in tensors:
                raise _damaged(path, f"layer {layer!r} has two tensors for {parameter!r}")
            values = dataset[()]
            native = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
            tensors[parameter] = _laid_out(path, name, native)
    return tensors


def _root(path: Path, file: h5py.File) -> Any:
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return file
    if file.get("model_weights", getlink=True) is not None:  # a file of a whole model, not only of weights
        return _inside(path, file, "model_weights", "group")
    if "_layer_checkpoint_dependencies" in file or "layers" in file:
        raise not_h5(path, f"Keras 3 layout (.weights.h5), which does not store layer names; {SAVE_AGAIN}")
    found = ", ".join(map(repr, list(file)[:3])) or "nothing"
    raise not_h5(path, f"not the weights of a Keras model: attribute 'layer_names' is missing; the file has {found}")


def _names(path: Path, group: Any, attribute: str) -> list[str]:
    """Return the list of names in an attribute; Keras splits long lists into attributes ``name0``, ``name1``, ..."""
    numbered = (f"{attribute}{number}" for number in range(len(group.attrs)))
    parts = [attribute] if attribute in group.attrs else [part for part in numbered if part in group.attrs]
    if not parts:
        raise _damaged(path, f"{group.name!r} has no attribute {attribute!r}")
    return [name for part in parts for name in _names_of_one(path, group, part)]


def _names_of_one(path: Path, group: Any, attribute: str) -> list[str]:
    import h5py

    stored = group.attrs.get_id(attribute)
    if stored.shape == (0,):  # a layer without weights
        return []
    kind = h5py.check_string_dtype(stored.dtype)
    too_many = len(stored.shape) != 1 or stored.shape[0] > _MOST_NAMES
    if kind is None or too_many or (kind.length or 0) > _LONGEST_NAME:
        raise _damaged(path, f"attribute {attribute!r} of {group.name!r} is not a list of names in the format of Keras")
    values = group.attrs[attribute].tolist()
    names = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
    strange = next((name for name in names if not name.isprintable() or len(name) > _LONGEST_NAME), None)
    if strange is not None:
        raise _damaged(path, f"attribute {attribute!r} of {group.name!r} lists {strange[:40]!r}, which is not a name")
    return names


def _inside(path: Path, group: Any, name: str, kind: str) -> Any:
    """Return the group or dataset at a path inside the file; refuse links, because a link may point to another file."""
    import h5py

    found = group
    for part in name.split("/"):
        link = found.get(part, getlink=True) if isinstance(found, h5py.Group) and part not in ("", ".") else None
        if link is None:
            raise _damaged(path, f"{kind} {name!r} of {group.name!r} is listed but missing")
        if not isinstance(link, h5py.HardLink):
            raise _unsafe(path, f"{kind} {name!r} is a link ({type(link).__name__}) that may point to another file")
        found = found[part]
    if not isinstance(found, h5py.Group if kind == "group" else h5py.Dataset):
        raise _damaged(path, f"{name!r} of {group.name!r} is not a {kind}")
    return found


def _size_of_plain(path: Path, name: str, dataset: Any) -> int:
    """Return the size of a dataset in bytes; refuse datasets that are compressed, external or not floating-point."""
    if dataset.is_virtual or dataset.external:
        raise _unsafe(path, f"tensor {name!r} is stored in another file; expected data inside this file")
    if dataset.dtype.name not in _FLOATS:
        raise _damaged(path, f"tensor {name!r} holds {dataset.dtype}; expected one of {', '.join(_FLOATS)}")
    stored, whole = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    if stored != whole:
        sizes = f"of shape {dataset.shape} needs {whole} bytes, the file stores {stored}"
        raise _damaged(path, f"tensor {name!r} {sizes}: it is compressed or incomplete; {SAVE_AGAIN}")
    return int(whole)


def _parameter(path: Path, layer: str, name: str) -> str:
    """Convert the name of a Keras variable to the torch name, such as ``layer/kernel:0`` to ``layer.weight``."""
    variable = re.sub(r":\d+$", "", name.rpartition("/")[2])
    if variable not in _PARAMETERS:
        raise _damaged(path, f"layer {layer!r} has a {variable!r}; expected one of {', '.join(_PARAMETERS)}")
    return f"{layer}.{_PARAMETERS[variable]}"


def _laid_out(path: Path, name: str, values: Tensor) -> Tensor:
    """Convert a tensor from Keras' layout, with output channels last, to torch's layout."""
    variable = name.rpartition("/")[2]
    if "kernel" not in variable:
        return values
    if values.ndim not in (2, 4):
        raise _damaged(path, f"kernel {name!r} has shape {tuple(values.shape)}; expected 2 or 4 dimensions")
    if values.ndim == 2:
        return values.t().contiguous()
    if variable.startswith("depthwise"):  # (height, width, in, multiplier)
        return values.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1).contiguous()
    return values.permute(3, 2, 0, 1).contiguous()


def _damaged(path: Path, fault: str) -> WeightsError:
    return WeightsError(f"{path}: {fault}", code="file-damaged", path=str(path))


def _unsafe(path: Path, fault: str) -> WeightsError:
    return WeightsError(f"{path}: {fault}", code="file-unsafe", path=str(path))
