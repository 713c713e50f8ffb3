"""Run by tests in a process of its own: real Keras builds a network, writes its files and says what it puts out.

``python keras_reference.py small|resnet152v2 FOLDER``. In the folder then lie ``reference.npz`` (the images, the logits
and the outputs of layers by name, in float64) and ``legacy.h5`` (laid out as TF-Keras does it, and so as the published
files are); of the small network also ``legacy_notop.h5`` (without its classifier), ``chunked.h5`` (with its attributes
cut up) and what Keras 3 itself saves: ``whole_model.h5``, ``keras3.weights.h5`` and ``keras3.keras``.

Keras writes to stderr and settles things for the whole process, so no test imports this.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

STAGES = {"small": (2, 3, 2, 2), "resnet152v2": (3, 8, 36, 3)}
# Odd and even, so that an edge padded wrongly shows.
SIZE = {"small": (75, 62), "resnet152v2": (96, 80)}
IMAGES = {"small": 3, "resnet152v2": 1}


def main(which: str, folder: Path) -> None:
    import keras
    import numpy as np

    compute_in_float64()
    keras.utils.set_random_seed(3)
    model = build(which)
    randomise(model)
    layers = [f"conv{stage}_block{depth}_out" for stage, depth in enumerate(STAGES[which], 2)]
    layers += ["pool1_pool", "post_relu", "avg_pool", "predictions"]
    images = np.random.default_rng(4).uniform(-1, 1, (IMAGES[which], *SIZE[which], 3))
    outputs = keras.Model(model.inputs[0], [model.get_layer(name).output for name in layers])(images)
    values = {name: keras.ops.convert_to_numpy(output) for name, output in zip(layers, outputs, strict=True)}
    np.savez(folder / "reference.npz", images=images, **values)
    save_legacy(model.layers, folder / "legacy.h5", chunks=1)
    if which == "small":
        save_legacy(model.layers, folder / "chunked.h5", chunks=3)
        save_legacy(model.layers[:-2], folder / "legacy_notop.h5", chunks=1)
        model.save(folder / "whole_model.h5")
        model.save_weights(folder / "keras3.weights.h5")
        model.save(folder / "keras3.keras")


def compute_in_float64() -> None:
    import keras
    from keras.src import backend
    from keras.src.backend.common import dtypes

    keras.config.set_floatx("float64")
    # BatchNormalization and mean ask for the type to compute in, and are told float32 for float64 (Keras 3.15).
    usual = dtypes.result_type

    def at_least_as_given(*given: Any) -> Any:
        return "float64" if any(str(dtype).endswith("float64") for dtype in given) else usual(*given)

    backend.result_type = dtypes.result_type = at_least_as_given


def build(which: str) -> Any:
    import keras
    from keras.src.applications import resnet

    if which == "resnet152v2":
        return keras.applications.ResNet152V2(weights=None, input_shape=(*SIZE[which], 3), classifier_activation=None)

    def stages(values: Any) -> Any:
        widths = (4, 6, 8, 10)
        for stage, (depth, width) in enumerate(zip(STAGES[which], widths, strict=True), 2):
            stride = 1 if stage == 5 else 2
            values = resnet.stack_residual_blocks_v2(values, width, depth, stride1=stride, name=f"conv{stage}")
        return values

    return resnet.ResNet(
        stages, True, True, weights=None, input_shape=(*SIZE[which], 3), classes=7, classifier_activation=None
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


def save_legacy(layers: list[Any], path: Path, chunks: int) -> None:
    import h5py
    import keras
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
                group[f"{layer.name}/{variable.name}:0"] = keras.ops.convert_to_numpy(variable.value)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
