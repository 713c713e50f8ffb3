"""Declare the built-in datasets; other modules of ``zoo_plugins`` contain the loaders.

This module imports no large package, because zoo imports the module of a loader when its dataset is first used.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo.dataset import Dataset
from zoo.hookspecs import hookimpl

CIFAR10_HUB_ID = "uoft-cs/cifar10"
CIFAR100_HUB_ID = "uoft-cs/cifar100"
FASHION_HUB_ID = "zalando-datasets/fashion_mnist"

DIGIT_CLASSES = tuple("0123456789")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
    "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree",
    "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree",
    "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit",
    "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe",
    "whale", "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

_KRIZHEVSKY = "Krizhevsky 2009, Learning multiple layers of features from tiny images"


@hookimpl
def zoo_datasets() -> Iterator[Dataset]:
    """Declare the built-in datasets."""
    yield Dataset(
        name="digits",
        title="scikit-learn digits",
        loader="zoo_plugins.digits:load",
        classes=DIGIT_CLASSES,
        sizes={"train": 1442, "test": 355},
        license=None,  # scikit-learn names the UCI repository as the origin of these images, but states no licence
        citation="Alpaydin and Kaynak 1998, Optical recognition of handwritten digits, UCI repository",
    )
    yield Dataset(
        name="fashion_mnist",
        title="Fashion-MNIST",
        loader="zoo_plugins.fashion_mnist:load",
        classes=FASHION_CLASSES,
        hub_id=FASHION_HUB_ID,
        sizes={"train": 60_000, "test": 10_000},
        license="mit",
        citation="Xiao, Rasul and Vollgraf 2017, https://arxiv.org/abs/1708.07747",
    )
    # The studies call the test split of CIFAR "validation set".
    yield Dataset(
        name="cifar10",
        title="CIFAR-10",
        loader="zoo_plugins.cifar:load_cifar10",
        classes=CIFAR10_CLASSES,
        hub_id=CIFAR10_HUB_ID,
        data_file=True,
        sizes={"train": 50_000, "test": 10_000},
        license=None,
        citation=_KRIZHEVSKY,
    )
    yield Dataset(
        name="cifar100",
        title="CIFAR-100, fine labels",
        loader="zoo_plugins.cifar:load_cifar100",
        classes=CIFAR100_CLASSES,
        hub_id=CIFAR100_HUB_ID,
        data_file=True,
        sizes={"train": 50_000, "test": 10_000},
        license=None,
        citation=_KRIZHEVSKY,
    )
    yield Dataset(
        name="imagefolder",
        title="Image folder",
        loader="zoo_plugins.image_folder:load",
        argument="PATH",
        classes=None,
        license=None,
        citation=None,
    )
    yield Dataset(
        name="table",
        title="Table",
        loader="zoo_plugins.table:load",
        argument="PATH",
        options=("image_column", "label_column", "split_column"),
        classes=None,
        license=None,
        citation=None,
    )
    yield Dataset(
        name="hf",
        title="Hub dataset",
        loader="zoo_plugins.hub_dataset:load",
        argument="OWNER/NAME",
        options=("image_column", "label_column"),
        classes=None,
        license=None,
        citation=None,
    )
