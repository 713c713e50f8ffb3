"""Records that declare a backbone: its weights, its layers, its classifier and its training settings.

Every record is strict: an unknown field, a wrong type or an empty name raises an error when the record is created.
The licence, the paper, the pretraining data and the accuracy of a backbone have no default: write ``None`` for an
unknown value. Importing this module does not import torch.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass, is_pydantic_dataclass

from zoo.architecture import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.fields import (
    LARGEST_COUNT,
    MOST_EPOCHS,
    STRICT,
    BackboneName,
    Finite,
    ModulePath,
    ModulePattern,
    Name,
    Pixels,
    Positive,
    Text,
)
from zoo.weights import WeightSource

MOST_CHECKPOINTS = 1000  # run.json has the scores of at most 1,000 checkpoints besides the main checkpoint
Augmentation = Literal["crop", "flip", "rotate"]
Pool = Literal["flatten", "average", "average_channels_last", "cls", "dist"]


def _check_distinct(features: tuple[FeatureLayer, ...]) -> tuple[FeatureLayer, ...]:
    if not features:
        raise ValueError("at least the layer that feeds the classifier must be declared")
    paths = [layer.path for layer in features]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"layer {twice[0]!r} is declared {paths.count(twice[0])} times")
    return features


@dataclass(frozen=True, config=STRICT)
class FeatureLayer:
    """A layer of the network whose output is pooled to one feature vector per image.

    ``path`` is the module's path in the network, and ``width`` is the length of the vector. ``pool`` selects how the
    output becomes a vector. Pooling ``flatten`` keeps every value. Pooling ``average`` takes the mean over the
    positions of a ``(B, C, H, W)`` map or over the tokens of a ``(B, N, C)`` sequence. Pooling
    ``average_channels_last`` takes the mean over the positions of a ``(B, H, W, C)`` map. Pooling ``cls`` selects
    token 0 of a ``(B, N, C)`` sequence, and pooling ``dist`` selects token 1. ``skip`` is the number of leading
    tokens, such as class and register tokens, that the mean over tokens excludes.

    >>> FeatureLayer("norm", 384, pool="cls").width
    384
    """

    path: ModulePath
    width: Annotated[int, Field(gt=0)]
    pool: Pool = "average"
    skip: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _only_a_mean_skips(self) -> FeatureLayer:
        if self.skip and self.pool != "average":
            raise ValueError(f"skip {self.skip} needs pool 'average'; given pool {self.pool!r}")
        return self


FeatureLayers = Annotated[tuple[FeatureLayer, ...], AfterValidator(_check_distinct)]


@dataclass(frozen=True, config=STRICT)
class Head:
    """The classifier that training replaces with a linear layer, or with an MLP that has one hidden layer and ReLU.

    ``path`` names the module that maps the penultimate vector to logits. ``hidden`` is the number of hidden units of
    the MLP; ``None`` selects the linear layer. The output of the module at ``path`` is used as logits. zoo neither
    trains nor scores modules after the classifier, such as a temperature, and warns about these modules. ``bypass``
    names modules before the classifier that zoo replaces by the identity, such as the two 4096-wide layers of Keras'
    VGG. ``in_features`` is the length of the classifier's input vector. ``in_features`` is required if ``bypass`` is
    given, and for a network that was published without a classifier.

    >>> Head("head", hidden=256).hidden
    256
    >>> Head("head.fc", hidden=256, bypass=("pre_logits",), in_features=512).in_features
    512
    """

    path: ModulePath
    hidden: Annotated[int, Field(gt=0)] | None = None
    bypass: tuple[ModulePath, ...] = ()
    in_features: Annotated[int, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _width_is_known(self) -> Head:
        if self.bypass and self.in_features is None:
            raise ValueError(f"bypass of {self.bypass[0]!r} changes the classifier's input width; give in_features")
        return self

    @property
    def parts(self) -> tuple[Head, ...]:
        """The classifier itself, in a tuple, because :class:`DualHead` has two classifiers."""
        return (self,)


@dataclass(frozen=True, config=STRICT)
class DualHead:
    """Two classifiers that are trained together, as in distilled DeiT; the loss is the sum of their cross-entropies.

    >>> [head.path for head in DualHead(cls=Head("head"), dist=Head("head_dist")).parts]
    ['head', 'head_dist']
    """

    cls: Head
    dist: Head

    @model_validator(mode="after")
    def _two_of_them(self) -> DualHead:
        if self.cls.path == self.dist.path:
            raise ValueError(f"cls and dist have the same path {self.cls.path!r}; expected two different classifiers")
        return self

    @property
    def parts(self) -> tuple[Head, ...]:
        """Both classifiers; by default, the first classifier makes the predictions."""
        return (self.cls, self.dist)


@dataclass(frozen=True, config=STRICT)
class Training:
    """The settings of a training run; the defaults are the settings of Malpure et al. (2021).

    Only the optimizer ``sgd`` uses ``momentum``; ``nesterov`` selects Nesterov momentum. The optimizers ``adam`` and
    ``sgd`` apply ``weight_decay`` as an L2 term of the gradient; ``adamw`` decouples weight decay from the gradient.
    ``schedule`` selects how the learning rate changes. Schedule ``constant`` keeps the rate. Schedule ``multistep``
    multiplies the rate by ``decay`` after each epoch in ``milestones``. Schedule ``cosine`` decays the rate to 0 over
    the steps after the warm-up. During the first ``warmup_epochs`` epochs, the rate rises linearly at each step.

    With ``class_weights="balanced"``, classes with few images have a larger weight in the loss. The weight of an image
    is N / (K x M) for N training images, K classes, and M training images of the same class. ``augment`` names random
    changes of training images. The change ``crop`` pads an image by an eighth of its side, and crops the result to the
    image's size. The change ``flip`` mirrors left to right with probability 1/2, and ``rotate`` rotates by up to 15
    degrees. If ``views`` is not given, each epoch draws new random changes. ``views`` is the number of augmented copies
    to cache for each image; the epochs cycle through the cached copies.

    Training stops after ``patience`` epochs without a better evaluation accuracy; ``None`` disables early stopping.
    With ``keep="last"``, the main checkpoint has the weights of the last epoch. With ``keep="best"``, the main
    checkpoint has the weights of the epoch with the best evaluation accuracy. With ``keep="both"``, the main checkpoint
    has the best weights, and zoo saves the last weights too. With ``save_every=N``, zoo also saves the weights of every
    N-th epoch.

    >>> Training().epochs
    20
    >>> Training(schedule="multistep", milestones=(60, 120, 160), decay=0.2).milestones
    (60, 120, 160)
    """

    epochs: Annotated[int, Field(ge=0, le=MOST_EPOCHS)] = 20
    learning_rate: Positive = 1e-4
    batch_size: Annotated[int, Field(gt=0, le=LARGEST_COUNT)] = 32
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["constant", "multistep", "cosine"] = "constant"
    milestones: tuple[Annotated[int, Field(gt=0, le=MOST_EPOCHS)], ...] = ()
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    augment: tuple[Augmentation, ...] = ()
    views: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] | None = None
    patience: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] | None = None
    keep: Literal["last", "best", "both"] = "last"
    save_every: Annotated[int, Field(gt=0, le=MOST_EPOCHS)] | None = None

    @model_validator(mode="after")
    def _settings_go_together(self) -> Training:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum {self.momentum} is a setting of optimizer 'sgd', not of {self.optimizer!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        if self.schedule == "multistep" and not self.milestones:
            raise ValueError("schedule 'multistep' needs milestones: epochs after which the learning rate decreases")
        if self.milestones and self.schedule != "multistep":
            raise ValueError(f"milestones {self.milestones} need schedule 'multistep'; given {self.schedule!r}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must be distinct epochs in ascending order")
        if 0 < self.epochs < self.warmup_epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} is more than the {self.epochs} epochs of the run")
        if self.save_every and 0 < self.epochs < self.save_every:
            raise ValueError(f"save_every {self.save_every} is more than the {self.epochs} epochs of the run")
        if self.save_every and self.epochs // self.save_every > MOST_CHECKPOINTS:
            kept = self.epochs // self.save_every
            raise ValueError(
                f"save_every {self.save_every} keeps {kept:,} checkpoints; expected {MOST_CHECKPOINTS:,} or fewer"
            )
        if len(set(self.augment)) < len(self.augment):
            raise ValueError(f"augment {self.augment} contains a duplicate; name each change once")
        if self.views and not self.augment:
            raise ValueError(f"views {self.views} needs at least one change in augment; given an empty augment")
        return self


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A published way to fine-tune a backbone; a field that is ``None`` takes its value from the backbone's record.

    ``source`` names the publication. ``resize="own"`` resizes and crops images as the weights require.
    ``resize="squash"`` resizes both sides of an image to the input size, without cropping. ``input_size`` is (height,
    width) in pixels; the default is the input size of the weights. If ``head`` bypasses layers, declare ``features``
    without these layers. ``reported_parameters`` is the number of trained parameters that the publication prints for
    ``reported_classes`` classes.

    >>> Recipe("Malpure et al. 2021", head=Head("fc", hidden=256), resize="squash").resize
    'squash'
    """

    source: Text
    unfreeze: tuple[ModulePattern, ...] | None = None
    head: Head | DualHead | None = None
    training: Training | None = None
    resize: Literal["own", "squash"] = "own"
    input_size: tuple[Pixels, Pixels] | None = None
    features: FeatureLayers | None = None
    reported_parameters: Annotated[int, Field(gt=0)] | None = None
    reported_classes: Annotated[int, Field(gt=1)] = 10


SCRATCH = Recipe(
    "University of Tehran 2023",
    unfreeze=("*",),
    training=Training(
        epochs=200,
        learning_rate=0.1,
        batch_size=128,
        optimizer="sgd",
        momentum=0.9,
        weight_decay=5e-4,
        schedule="multistep",
        milestones=(60, 120, 160),
        decay=0.2,
        warmup_epochs=1,
        augment=("crop", "flip", "rotate"),
        keep="best",
    ),
)
"""The recipe of ``zoo train`` for every backbone that does not declare its own recipe ``scratch``."""


@dataclass(frozen=True, config=STRICT)
class Preprocessing:
    """How an image is resized, cropped and normalised; ``mean`` and ``std`` apply to pixel values in [0, 1].

    ``input_size`` is (height, width) in pixels. With ``crop_mode="center"``, zoo resizes the image to the input size
    divided by ``crop_fraction``, without changing the aspect ratio, and then crops the centre. With
    ``crop_mode="squash"``, zoo resizes both sides separately, which changes the aspect ratio.

    >>> Preprocessing(input_size=(32, 32)).crop_fraction
    1.0
    """

    input_size: tuple[Pixels, Pixels]
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    crop_mode: Literal["center", "squash"] = "center"


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Backbone:
    """The record of one backbone: its weights, network, layers, classifier, recipes and origin.

    ``unfreeze`` names the modules to train, as exact paths or globs; ``*`` trains the whole network. ``head`` is the
    classifier to replace. ``features`` lists the layers to score, in depth order; the last layer is the classifier's
    input. ``architecture`` and ``preprocessing`` are optional if the weights determine both. ``imagenet_top1`` is the
    ImageNet top-1 accuracy of these weights, in percent.

    If zoo derived the record automatically from a library's network, ``derived_from`` names the library. The name of a
    derived backbone begins with the prefix of its family. Set ``has_classifier=False`` if the published network has
    another module at ``head``, such as CLIP's projection, instead of a classifier. Such a backbone has no scores that
    need the classes of the pretraining data.

    >>> from zoo import TimmWeights
    >>> backbone = Backbone(
    ...     name="tiny", weights=TimmWeights("test_vit.r160_in1k"), unfreeze=("blocks.5", "norm"), head=Head("head"),
    ...     features=(FeatureLayer("blocks.5", 64), FeatureLayer("fc_norm", 64, pool="flatten")),
    ...     license="apache-2.0", paper=None, pretrained_on="ImageNet-1k", imagenet_top1=None,
    ... )
    >>> backbone.tuning("default").head == backbone.head
    True
    """

    name: BackboneName
    weights: WeightSource
    unfreeze: tuple[ModulePattern, ...]
    head: Head | DualHead
    features: FeatureLayers
    license: Text | None
    paper: Text | None
    pretrained_on: Text | None
    imagenet_top1: Annotated[float, Field(ge=0, le=100)] | None
    title: str = ""
    architecture: Architecture | None = None
    preprocessing: Preprocessing | None = None
    recipes: dict[Name, Recipe] = field(default_factory=dict)
    derived_from: Text | None = None
    has_classifier: bool = True

    @field_validator("recipes")
    @classmethod
    def _default_is_the_record(cls, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
        if "default" in recipes:
            raise ValueError("'default' is reserved for the backbone's own settings; choose another recipe name")
        return recipes

    @field_validator("weights")
    @classmethod
    def _weights_are_strict_and_described(cls, weights: WeightSource) -> WeightSource:
        made = type(weights)
        if not is_pydantic_dataclass(made):
            raise ValueError(f"{made.__name__} does not validate; decorate it with pydantic's @dataclass(frozen=True)")
        words = weights.describe()
        if not isinstance(words, str) or not words or not words.isprintable():
            raise ValueError(f"{made.__name__}.describe() returned {words!r:.80}; expected one line of text")
        return weights

    @model_validator(mode="after")
    def _only_derived_names_have_a_prefix(self) -> Backbone:
        if self.derived_from is None and ":" in self.name:
            raise ValueError(f"name {self.name!r} has the prefix of a family; only derived records may have a prefix")
        return self

    @model_validator(mode="after")
    def _architecture_is_known(self) -> Backbone:
        if self.architecture is None and self.weights.implied_network() is None:
            raise ValueError(f"weights of kind {self.weights.kind!r} do not determine the network; give architecture")
        return self

    @property
    def network(self) -> TimmArchitecture | TorchvisionArchitecture | FactoryArchitecture:
        """The network to build: the declared architecture, or the network that the weights imply."""
        network = self.architecture or self.weights.implied_network()
        assert network is not None  # noqa: S101 - checked by the validator above
        return network

    def tuning(self, recipe: str) -> Tuning:
        """Return the settings of a recipe, with missing fields filled in from this backbone's record.

        The recipe ``"default"`` consists of the record's own settings. If the backbone declares no recipe
        ``"scratch"``, :data:`SCRATCH` is used. Raises :class:`~zoo.errors.UnknownNameError` for an unknown recipe.
        """
        if recipe == "default":
            return Tuning("default", self.unfreeze, self.head, Training(), self.features)
        recipes = {"scratch": SCRATCH, **self.recipes}
        if recipe not in recipes:
            from zoo.errors import UnknownNameError

            raise UnknownNameError(f"recipe of {self.name}", recipe, ["default", *recipes])
        chosen = recipes[recipe]
        return Tuning(
            recipe=recipe,
            unfreeze=self.unfreeze if chosen.unfreeze is None else chosen.unfreeze,
            head=chosen.head or self.head,
            training=chosen.training or Training(),
            features=chosen.features or self.features,
            resize=chosen.resize,
            input_size=chosen.input_size,
            source=chosen.source,
        )


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """The complete settings of a recipe, after missing fields were filled in from the record of the backbone.

    If ``input_size`` is ``None``, images are resized to the input size of the weights.

    >>> layers = (FeatureLayer("global_pool", 512, pool="flatten"),)
    >>> Tuning("default", ("layer4.1",), Head("fc"), Training(), layers).training.batch_size
    32
    """

    recipe: str
    unfreeze: tuple[ModulePattern, ...]
    head: Head | DualHead
    training: Training
    features: tuple[FeatureLayer, ...]
    resize: Literal["own", "squash"] = "own"
    input_size: tuple[Pixels, Pixels] | None = None
    source: str | None = None
