"""ResNet152V2 (He et al. 2016) with the ImageNet weights of Keras applications, which no other library provides."""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FactoryArchitecture, FeatureLayer, Head, KerasWeights, Preprocessing, Recipe, hookimpl

BLOCKS = {"conv2": 3, "conv3": 8, "conv4": 36, "conv5": 3}
WIDTHS = {"conv2": 256, "conv3": 512, "conv4": 1024, "conv5": 2048}


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare ResNet152V2."""
    yield Backbone(
        name="resnet152v2",
        title="ResNet152V2",
        architecture=FactoryArchitecture("zoo_plugins.resnetv2_network:resnet152v2"),
        # Folder, name and MD5 are copied from keras/src/applications/resnet.py of Keras 3.15.
        weights=KerasWeights(
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/",
            "resnet152v2_weights_tf_dim_ordering_tf_kernels.h5",
            md5="a49b44d1979771252814e80f8ec446f9",
        ),
        # Keras normalises by value / 127.5 - 1 (keras/src/applications/imagenet_utils.py, mode "tf"). Keras evaluates
        # centre crops of 224 pixels, but does not state the size before the crop; 256 pixels are usual.
        preprocessing=Preprocessing(
            input_size=(224, 224),
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            interpolation="bilinear",
            crop_fraction=0.875,
        ),
        unfreeze=("conv5", "post_bn"),
        head=Head("predictions"),
        recipes={
            "paper": Recipe(
                "Malpure et al. 2021, Table 1",
                head=Head("predictions", hidden=256),
                resize="squash",
                reported_parameters=15_497_994,
            ),
        },
        features=(
            FeatureLayer("pool1", 64),
            *(
                FeatureLayer(f"{stage}.block{number}", WIDTHS[stage])
                for stage, depth in BLOCKS.items()
                for number in range(1, depth + 1)
            ),
            FeatureLayer("post_relu", 2048),
            FeatureLayer("avg_pool", 2048, pool="flatten"),
        ),
        license=None,  # the code of Keras is Apache-2.0, but Keras states no licence for these weights
        paper="https://arxiv.org/abs/1603.05027",
        pretrained_on="ImageNet-1k",
        imagenet_top1=78.0,  # from https://keras.io/api/applications/, which prints one decimal
    )
