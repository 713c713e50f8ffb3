"""Records in which a plugin declares a backbone; the harness does everything else.

Each record is strict: an unknown key, a wrong type or an empty name is an error when the record is made. Facts about
where a backbone comes from (licence, paper, data, accuracy) have no default: write ``None`` for unknown ones. Nothing
here imports torch.
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

MOST_CHECKPOINTS = 1000  # beside the main one; a record has room for their scores
Augmentation = Literal["crop", "flip", "rotate"]
Pool = Literal["flatten", "average", "average_channels_last", "cls", "dist"]


def _check_distinct(features: tuple[FeatureLayer, ...]) -> tuple[FeatureLayer, ...]:
    if not features:
        raise ValueError("at least the layer the classifier sees must be declared")
    paths = [layer.path for layer in features]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ValueError(f"layer {twice[0]!r} is declared {paths.count(twice[0])} times")
    return features


@dataclass(frozen=True, config=STRICT)
class FeatureLayer:
    """A layer whose output is read as one vector per image.

    ``pool`` is one of these: ``flatten`` keeps every value; ``average`` is the mean over the positions of a
    ``(B, C, H, W)`` map or over the tokens of ``(B, N, C)``; ``average_channels_last`` the mean over a ``(B, H, W, C)``
    map; ``cls`` and ``dist`` are tokens 0 and 1 of ``(B, N, C)``. ``width`` is the length of the vector. ``skip`` is
    the number of tokens at the start, such as class and register tokens, that the mean over tokens leaves out.

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
            raise ValueError(f"skip {self.skip} is for pool 'average', not for {self.pool!r}")
        return self


FeatureLayers = Annotated[tuple[FeatureLayer, ...], AfterValidator(_check_distinct)]


@dataclass(frozen=True, config=STRICT)
class Head:
    """The classifier to replace: a linear layer, or with ``hidden`` a small MLP (in -> hidden -> classes, ReLU).

    ``path`` names the module that maps the penultimate vector to logits. Its output is used as logits: modules after
    it, such as a temperature, are neither trained nor scored, and a run warns of them. ``bypass`` names modules before
    the classifier that are replaced by the identity, such as the two 4096-wide layers of Keras' VGG. ``in_features`` is
    the length of the classifier's input vector; it is required with ``bypass`` and for a network published without a
    classifier.

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
            raise ValueError(f"bypassing {self.bypass[0]!r} changes the classifier's width; give in_features")
        return self

    @property
    def parts(self) -> tuple[Head, ...]:
        """The classifiers to replace, the one predicted from first."""
        return (self,)


@dataclass(frozen=True, config=STRICT)
class DualHead:
    """Two classifiers, as in distilled DeiT; the loss is the sum of both cross-entropies.

    >>> [head.path for head in DualHead(cls=Head("head"), dist=Head("head_dist")).parts]
    ['head', 'head_dist']
    """

    cls: Head
    dist: Head

    @model_validator(mode="after")
    def _two_of_them(self) -> DualHead:
        if self.cls.path == self.dist.path:
            raise ValueError(f"cls and dist have the same path {self.cls.path!r}; expected two classifiers")
        return self

    @property
    def parts(self) -> tuple[Head, ...]:
        """The classifiers to replace, the one predicted from first."""
        return (self.cls, self.dist)


@dataclass(frozen=True, config=STRICT)
class Training:
    """The settings of a training run; the defaults are those of Malpure et al. (2021).

    ``momentum`` (Nesterov's with ``nesterov``) is for ``sgd``; ``adam`` and ``sgd`` add ``weight_decay`` to the
    gradient, ``adamw`` decouples it. ``schedule`` is that of the learning rate: ``constant``; ``multistep`` multiplies
    it by ``decay`` after each epoch in ``milestones``; ``cosine`` decays it to 0 over the steps after the warm-up. It
    rises linearly, step by step, over the first ``warmup_epochs``. With ``class_weights`` ``balanced`` the loss of an
    image is multiplied by n / (classes x images of its class). ``augment`` names random changes of training images:
    ``crop`` (padded by an eighth of the side and cropped back), ``flip`` (left to right, with probability 1/2) and
    ``rotate`` (up to 15 degrees). They are drawn anew in every epoch, unless ``views`` is the number of augmented
    copies to cache for each image; epochs cycle through them. ``patience`` is the number of epochs without a better
    evaluation accuracy after which training stops, ``None`` for never. ``keep`` is the epoch of the checkpoint's
    weights: the ``last``, or that of the ``best`` evaluation accuracy; ``both`` is ``best``, with the last weights
    beside it. ``save_every``: also keep the weights of every N-th epoch, ``None`` for no others.

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
            raise ValueError("schedule 'multistep' needs milestones, the epochs after which the learning rate falls")
        if self.milestones and self.schedule != "multistep":
            raise ValueError(f"milestones {self.milestones} are of schedule 'multistep', not of {self.schedule!r}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones {self.milestones} must be epochs in ascending order")
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
            raise ValueError(f"augment {self.augment} names one twice")
        if self.views and not self.augment:
            raise ValueError(f"views {self.views} needs augment, which is empty")
        return self


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """One published way to tune a backbone; fields that are ``None`` are as in the backbone's own record.

    ``resize`` is ``"own"`` for the weights' own resize and crop, ``"squash"`` for a plain resize to the input size
    without cropping; ``input_size`` (height, width in pixels) is given if it is not that of the weights, and
    ``features`` if ``head`` bypasses layers. ``reported_parameters`` is the count of trained parameters that the
    source printed for ``reported_classes`` classes.

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
"""How ``zoo train`` trains any backbone from scratch, unless the backbone has a recipe ``scratch`` of its own."""


@dataclass(frozen=True, config=STRICT)
class Preprocessing:
    """The preprocessing of an image; sizes in pixels, mean and std for values in [0, 1].

    The image is resized so that its shorter side is ``size / crop_fraction`` and the centre is cropped; with
    ``crop_mode="squash"`` both sides are resized instead, which ignores the aspect ratio.

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
    """Everything the harness must know about one backbone.

    ``unfreeze`` names the modules that train (exact paths or globs, ``*`` for all of the network); ``head`` the
    classifier that is replaced; ``features`` the hookable layers in depth order, the last being the
    classifier's input. ``architecture`` and ``preprocessing`` may be left out if the weights imply them.
    ``imagenet_top1`` is the accuracy of these weights, in percent. ``derived_from`` names the library whose network the
    record was derived from, if nobody declared it by hand; its name then has the prefix of its family.
    ``has_classifier`` is false if what stands in the classifier's place is none, such as CLIP's projection: scores that
    need source classes are then blank.

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
            raise ValueError("'default' is the backbone's own record; choose another name for the recipe")
        return recipes

    @field_validator("weights")
    @classmethod
    def _weights_are_strict_and_described(cls, weights: WeightSource) -> WeightSource:
        made = type(weights)
        if not is_pydantic_dataclass(made):
            raise ValueError(f"{made.__name__} is not checked; decorate it with pydantic's @dataclass(frozen=True)")
        words = weights.describe()
        if not isinstance(words, str) or not words or not words.isprintable():
            raise ValueError(f"{made.__name__}.describe() returned {words!r:.80}; expected one line of text")
        return weights

    @model_validator(mode="after")
    def _only_derived_names_have_a_prefix(self) -> Backbone:
        if self.derived_from is None and ":" in self.name:
            raise ValueError(f"name {self.name!r} has the prefix of a family, whose records are derived")
        return self

    @model_validator(mode="after")
    def _architecture_is_known(self) -> Backbone:
        if self.architecture is None and self.weights.implied_network() is None:
            raise ValueError(f"weights of kind {self.weights.kind!r} do not say which network: give architecture")
        return self

    @property
    def network(self) -> TimmArchitecture | TorchvisionArchitecture | FactoryArchitecture:
        """The network to build: as declared, or as the weights imply."""
        network = self.architecture or self.weights.implied_network()
        assert network is not None  # noqa: S101 - checked by the validator above
        return network

    def tuning(self, recipe: str) -> Tuning:
        """Return a recipe, its missing fields filled in from this backbone; ``"default"`` is the record itself.

        Every backbone has a recipe ``"scratch"``: its own, or :data:`SCRATCH`.
        Raises :class:`~zoo.errors.UnknownNameError` if the recipe is not declared.
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
    """A recipe whose missing fields are filled in from its backbone.

    ``input_size``: ``None`` for the input size of the weights.

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
