"""Run by tests in a process of its own: real Keras builds a network, writes its files and says what it puts out.

``python keras_reference.py FOLDER``. In the folder then lie ``reference.npz`` (images, logits and the outputs of
layers by name, in float64) and ``legacy.h5`` (laid out as TF-Keras does it, and so as the published files are), both of
a small network; also ``legacy_notop.h5`` (without its classifier), ``chunked.h5`` (with its attributes cut up) and what
Keras 3 itself saves: ``whole_model.h5``, ``keras3.weights.h5`` and ``keras3.keras``. ``resnet152v2.h5`` has the layout
of the real network, with zeros for values, which take no room on the disk.

Keras writes to stderr and settles things for the whole process, so no test imports this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STAGES = (2, 3, 2, 2)
SIZE = (75, 62)  # odd and even, so that an edge padded wrongly shows


def main(folder: Path) -> None:
    import keras
    import numpy as np

    compute_in_float64()
    keras.utils.set_random_seed(3)
    model = build()
    randomise(model)
    layers = [f"conv{stage}_block{depth}_out" for stage, depth in enumerate(STAGES, 2)]
    layers += ["pool1_pool", "post_relu", "avg_pool", "predictions"]
    images = np.random.default_rng(4).uniform(-1, 1, (3, *SIZE, 3))
    outputs = keras.Model(model.inputs[0], [model.get_layer(name).output for name in layers])(images)
    values = {name: keras.ops.convert_to_numpy(output) for name, output in zip(layers, outputs, strict=True)}
    np.savez(folder / "reference.npz", images=images, **values)
    save_legacy(model.layers, folder / "legacy.h5")
    save_legacy(model.layers, folder / "chunked.h5", chunks=3)
    save_legacy(model.layers[:-2], folder / "legacy_notop.h5")
    model.save(folder / "whole_model.h5")
    model.save_weights(folder / "keras3.weights.h5")
    model.save(folder / "keras3.keras")
    with keras.device("meta"):
        real = keras.applications.ResNet152V2(weights=None, classifier_activation=None)
    save_legacy(real.layers, folder / "resnet152v2.h5", put=put_zeros)


def compute_in_float64() -> None:
    import keras
    from keras.src import backend
    from keras.src.backend.common import dtypes

    keras.config.set_floatx("float64")
    # BatchNormalization and mean ask for the type to compute in, and get float32 for float64 (Keras 3.15).
    usual = dtypes.result_type

    def at_least_as_given(*given: Any) -> Any:
        return "float64" if any(str(dtype).endswith("float64") for dtype in given) else usual(*given)

    backend.result_type = dtypes.result_type = at_least_as_given


def build() -> Any:
    from keras.src.applications import resnet

    def stages(values: Any) -> Any:
        widths = (4, 6, 8, 10)
        for stage, (depth, width) in enumerate(zip(STAGES, widths, strict=True), 2):
            stride = 1 if stage == 5 else 2
            values = resnet.stack_residual_blocks_v2(values, width, depth, stride1=stride, name=f"conv{stage}")
        return values

    return resnet.ResNet(
        stages, True, True, weights=None, input_shape=(*SIZE, 3), classes=7, classifier_activation=None
    )


def randomise(model: Any) -> None:
    """Give every value that Keras begins with at 0 or 1 another, so that none can be mixed up unnoticed."""
    import numpy as np

    random = np.random.default_rng(5)
    for variable in model.weights:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(random.normal(0, 0.1, variable.shape))


def put_values(group: Any, name: str, variable: Any) -> None:
    import keras

    group[name] = keras.ops.convert_to_numpy(variable.value)


def put_zeros(group: Any, name: str, variable: Any) -> None:
    """Let the file have the size of the values, and nothing but a hole in their place."""
    group.create_dataset(name, variable.shape, "float32", fill_time="never")[(0,) * len(variable.shape)] = 0


def save_legacy(
    layers: list[Any], path: Path, chunks: int = 1, put: Callable[[Any, str, Any], None] = put_values
) -> None:
    import h5py
    import numpy as np

    def put_names(group: Any, attribute: str, names: list[str]) -> None:
        encoded = [name.encode() for name in names]
        if chunks == 1 or not names:
            group.attrs[attribute] = encoded  # h5py 3 stores strings of variable length, before it stored fixed ones
            return
        for number, part in enumerate(np.array_split(np.array(encoded), chunks)):
            group.attrs[f"{attribute}{number}"] = part

    with h5py.File(path, "w") as file:
        put_names(file, "layer_names", [layer.name for layer in layers])
        for layer in layers:
            group = file.create_group(layer.name)
            put_names(group, "weight_names", [f"{layer.name}/{variable.name}:0" for variable in layer.weights])
            for variable in layer.weights:
                put(group, f"{layer.name}/{variable.name}:0", variable)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
