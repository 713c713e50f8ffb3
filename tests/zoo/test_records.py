"""The records: strict, frozen, and silent about nothing that a reader would otherwise guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from zoo import (
    Backbone,
    Dataset,
    DualHead,
    FactoryArchitecture,
    FeatureLayer,
    FileWeights,
    Head,
    HubWeights,
    KerasWeights,
    PackageWeights,
    Preprocessing,
    RandomWeights,
    Recipe,
    TimmArchitecture,
    TimmWeights,
    TorchvisionArchitecture,
    TorchvisionWeights,
    Training,
    UnknownNameError,
)

Make = Callable[[], object]
DIGEST = "0123456789abcdef" * 4
FOLDER = "https://storage.example.org/keras-applications/resnet/"
BACKBONE: dict[str, Any] = {
    "name": "tiny",
    "weights": TimmWeights("test_resnet.r160_in1k"),
    "unfreeze": ("layer4",),
    "head": Head("fc"),
    "features": (FeatureLayer("global_pool", 96, pool="flatten"),),
    "license": None,
    "paper": None,
    "pretrained_on": None,
    "imagenet_top1": None,
}
DATASET: dict[str, Any] = {
    "name": "blobs",
    "title": "Blobs",
    "loader": "package.data:load",
    "classes": ("left", "right"),
    "license": None,
    "citation": None,
}
RECORDS = [
    Backbone(**BACKBONE),
    Dataset(**DATASET),
    DualHead(Head("head"), Head("head_dist")),
    FactoryArchitecture("package.networks:tiny"),
    FeatureLayer("layer4", 96),
    FileWeights("net.safetensors"),
    Head("fc"),
    HubWeights("someone/net"),
    KerasWeights(FOLDER, "resnet152v2_weights.h5", DIGEST[:32]),
    PackageWeights("some-weights", "some_weights/net.pth", DIGEST),
    Preprocessing((32, 32)),
    RandomWeights(),
    Recipe("somebody 2021"),
    TimmArchitecture("resnet18"),
    TimmWeights("resnet18.tv_in1k"),
    TorchvisionArchitecture("resnet18"),
    TorchvisionWeights("resnet18", "IMAGENET1K_V1", "resnet18-f37072fd.pth"),
    Training(),
    Backbone(**BACKBONE).tuning("default"),
]


def backbone(**changes: object) -> Backbone:
    return Backbone(**{**BACKBONE, **changes})


def dataset(**changes: object) -> Dataset:
    return Dataset(**{**DATASET, **changes})


def refused(make: Make) -> str:
    """The place and the message of the one fault of the record."""
    with pytest.raises(ValidationError) as caught:
        make()
    (fault,) = {(fault["loc"][:1], fault["msg"]) for fault in caught.value.errors()}
    return " ".join(map(str, (*fault[0], fault[1])))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_is_frozen_and_refuses_what_it_does_not_know(record: Any) -> None:
    first = next((field.name for field in dataclasses.fields(record)), "kind")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, first, getattr(record, first))
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    assert type(record)(**fields) == record
    assert "colour" in refused(lambda: type(record)(**fields, colour="red"))


@pytest.mark.parametrize("field", ["license", "paper", "pretrained_on", "imagenet_top1"])
def test_a_backbones_provenance_has_no_default(field: str) -> None:
    assert refused(lambda: Backbone(**{key: BACKBONE[key] for key in BACKBONE if key != field})).startswith(field)
    assert refused(lambda: backbone(**{field: ""})).startswith(field)


@pytest.mark.parametrize("field", ["license", "citation", "classes"])
def test_a_data_sets_provenance_has_no_default(field: str) -> None:
    assert refused(lambda: Dataset(**{key: DATASET[key] for key in DATASET if key != field})).startswith(field)
    assert refused(lambda: dataset(**{field: ""})).startswith(field)


def test_fields_of_a_backbone_are_given_by_name() -> None:
    with pytest.raises(ValidationError):
        Backbone(*BACKBONE.values())  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 3),
        ("name", ""),
        ("name", "ResNet"),
        ("name", "res-net"),
        ("name", "_resnet"),
        ("name", "a" * 65),
        ("name", "a\n"),
        ("unfreeze", "layer4"),
        ("unfreeze", ["layer4"]),
        ("unfreeze", ("layer4", "")),
        ("unfreeze", ("layer4.",)),
        ("unfreeze", (".layer4",)),
        ("unfreeze", ("layer 4",)),
        ("unfreeze", ("layer4/conv",)),
        ("unfreeze", (4,)),
        ("features", ()),
        ("features", (FeatureLayer("layer4", 96), FeatureLayer("layer4", 96, pool="cls"))),
        ("features", [FeatureLayer("layer4", 96)]),
        ("features", ("layer4",)),
        ("head", "fc"),
        ("head", None),
        ("weights", "test_resnet.r160_in1k"),
        ("weights", TimmArchitecture("test_resnet")),
        ("weights", None),
        ("imagenet_top1", "83.4"),
        ("imagenet_top1", -1.0),
        ("imagenet_top1", 100.5),
        ("imagenet_top1", float("nan")),
        ("license", 2.0),
        ("architecture", TimmWeights("test_resnet.r160_in1k")),
        ("architecture", "test_resnet"),
        ("preprocessing", (32, 32)),
        ("recipes", {"default": Recipe("somebody")}),
        ("recipes", {"The Paper": Recipe("somebody")}),
        ("recipes", {"paper": "somebody"}),
    ],
)
def test_a_backbone_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        backbone(**{field: value})
    assert {fault["loc"][0] for fault in caught.value.errors()} == {field}


@pytest.mark.parametrize("pattern", ["layer4", "layer4.1", "features.0", "0", "blocks.*", "blocks.1[01]", "*", "*.b?"])
def test_module_patterns_are_paths_or_globs(pattern: str) -> None:
    assert backbone(unfreeze=(pattern,)).unfreeze == (pattern,)


@pytest.mark.parametrize("path", ["blocks.*", "", "a..b", "a.", ".a", "a b", "head[0]", "a:b", "a\n"])
def test_head_and_features_are_exact_paths(path: str) -> None:
    assert refused(lambda: Head(path)).startswith("0 String should")
    assert refused(lambda: FeatureLayer(path, 8)).startswith("0 String should")
    assert Head("0").path == "0"


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureLayer("layer4", 0),
        lambda: FeatureLayer("layer4", 96.0),  # type: ignore[arg-type]
        lambda: FeatureLayer("layer4", True),
        lambda: FeatureLayer("layer4", 96, pool="max"),  # type: ignore[arg-type]
        lambda: Head("fc", hidden=0),
        lambda: Head("fc", in_features=0),
        lambda: Head("fc", bypass=("neck",)),
        lambda: Head("fc", bypass=("neck.*",), in_features=8),
        lambda: Recipe("somebody", features=()),
        lambda: Recipe("somebody", input_size=(224, 0)),
        lambda: Head("fc", hidden="256"),  # type: ignore[arg-type]
        lambda: DualHead(Head("head"), "head_dist"),  # type: ignore[arg-type]
        lambda: DualHead(Head("head"), Head("head", hidden=256)),
        lambda: Training(epochs=-1),
        lambda: Training(epochs=1.0),  # type: ignore[arg-type]
        lambda: Training(learning_rate=0),
        lambda: Training(learning_rate=float("inf")),
        lambda: Training(batch_size=0),
        lambda: Training(optimizer="rmsprop"),  # type: ignore[arg-type]
        lambda: Recipe(""),
        lambda: Recipe("somebody", unfreeze=("layer4.",)),
        lambda: Recipe("somebody", resize="crop"),  # type: ignore[arg-type]
        lambda: Recipe("somebody", reported_parameters=0),
        lambda: Recipe("somebody", reported_classes=1),
        lambda: Preprocessing((0, 32)),
        lambda: Preprocessing((32, 32, 3)),  # type: ignore[arg-type]
        lambda: Preprocessing((32, 32), mean=(0.5, 0.5, float("nan"))),
        lambda: Preprocessing((32, 32), std=(0.5, 0.0, 0.5)),
        lambda: Preprocessing((32, 32), crop_fraction=1.1),
        lambda: Preprocessing((32, 32), interpolation="lanczos"),  # type: ignore[arg-type]
    ],
)
def test_settings_out_of_range_are_refused(make: Make) -> None:
    assert refused(make)


@pytest.mark.parametrize(
    "repository",
    ["", "net", "a/b/c", "/net", "a/", "a b/net", "ä/net", "-a/net", "https://huggingface.co/a/b", "a/b\n"],
)
def test_a_hub_id_is_owner_and_name(repository: str) -> None:
    assert refused(lambda: HubWeights(repository)).startswith("0 String should")
    assert refused(lambda: dataset(hub_id=repository)).startswith("hub_id String should")
    assert HubWeights("ylecun/Fashion-MNIST_2.0").repository == "ylecun/Fashion-MNIST_2.0"


def test_a_published_md5_is_32_hexadecimal_digits() -> None:
    for md5 in ("", DIGEST[:31], DIGEST[:33], DIGEST[:32].upper(), "g" * 32, DIGEST):
        assert refused(lambda md5=md5: KerasWeights(FOLDER, "a.h5", md5)).startswith("2 String should")


def test_a_keras_file_says_where_it_is_published() -> None:
    assert KerasWeights(FOLDER, "a.h5", DIGEST[:32]).url == f"{FOLDER}a.h5"
    assert KerasWeights("https://example.org:8443/", "a.h5", DIGEST[:32]).url == "https://example.org:8443/a.h5"


@pytest.mark.parametrize("digest", ["", "abc", DIGEST[1:], DIGEST + "0", DIGEST.upper(), "g" * 64])
def test_a_digest_is_64_hexadecimal_digits(digest: str) -> None:
    for make in (
        lambda: HubWeights("a/b", sha256=digest),
        lambda: TimmWeights("a.b", sha256=digest),
        lambda: FileWeights("a.pth", sha256=digest),
        lambda: PackageWeights("a", "a/b.pth", sha256=digest),
    ):
        assert refused(make).startswith("sha256")


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimmWeights("resnet18"),  # a bare architecture could mean several
        lambda: TimmWeights("timm/resnet18.tv_in1k"),
        lambda: TimmWeights("resnet18.tv_in1k", revision=""),
        lambda: TimmArchitecture("resnet18.tv.in1k"),
        lambda: TimmArchitecture(""),
        lambda: TorchvisionArchitecture("ResNet18"),
        lambda: TorchvisionWeights("resnet18", "imagenet", "resnet18.pth"),
        lambda: TorchvisionWeights("resnet18", "IMAGENET1K_V1", ".."),
        lambda: TorchvisionWeights("resnet18", "IMAGENET1K_V1", "../resnet18.pth"),
        lambda: HubWeights("a/b", "model.bin"),
        lambda: HubWeights("a/b", "../model.safetensors"),
        lambda: HubWeights("a/b", "/model.safetensors"),
        lambda: KerasWeights("http://example.org/", "a.h5", DIGEST[:32]),  # anybody on the way could change it
        lambda: KerasWeights("https://example.org", "a.h5", DIGEST[:32]),
        lambda: KerasWeights("https://example.org/a/../", "a.h5", DIGEST[:32]),
        lambda: KerasWeights("https://user@example.org/", "a.h5", DIGEST[:32]),
        lambda: KerasWeights("https://example.org/?a=/", "a.h5", DIGEST[:32]),
        lambda: KerasWeights("file:///tmp/", "a.h5", DIGEST[:32]),
        lambda: KerasWeights(FOLDER, "../a.h5", DIGEST[:32]),
        lambda: KerasWeights(FOLDER, ".h5", DIGEST[:32]),
        lambda: KerasWeights(FOLDER, "a.keras", DIGEST[:32]),
        lambda: PackageWeights("some weights", "a/b.pth", DIGEST),
        lambda: PackageWeights("a", "/a/b.pth", DIGEST),
        lambda: PackageWeights("a", "a/../../b.pth", DIGEST),
        lambda: PackageWeights("a", "a/b.pkl", DIGEST),
        lambda: FileWeights(""),
        lambda: FactoryArchitecture("package.networks"),
        lambda: FactoryArchitecture("package..networks:tiny"),
        lambda: FactoryArchitecture("package.:tiny"),
        lambda: FactoryArchitecture("package:tiny()"),
    ],
)
def test_names_of_weights_and_networks_are_checked(make: Make) -> None:
    assert "String should" in refused(make)


def test_nobody_can_pass_one_kind_of_weights_for_another() -> None:
    assert "kind" in refused(lambda: RandomWeights(kind="timm"))  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "weights",
    [
        RandomWeights(),
        FileWeights("a.pth"),
        HubWeights("a/b"),
        KerasWeights(FOLDER, "a.h5", DIGEST[:32]),
        PackageWeights("a", "a/b.pth", DIGEST),
    ],
    ids=lambda weights: weights.kind,
)
def test_weights_that_do_not_say_which_network_need_an_architecture(weights: Any) -> None:
    assert f"weights of kind '{weights.kind}' do not determine" in refused(lambda: backbone(weights=weights))
    given = FactoryArchitecture("package.networks:tiny")
    assert backbone(weights=weights, architecture=given).network == given


def test_weights_of_timm_and_torchvision_imply_the_network() -> None:
    assert backbone().network == TimmArchitecture("test_resnet.r160_in1k")
    torchvision = TorchvisionWeights("resnet18", "IMAGENET1K_V1", "resnet18-f37072fd.pth")
    assert backbone(weights=torchvision).network == TorchvisionArchitecture("resnet18")
    assert backbone(architecture=TimmArchitecture("test_vit")).network == TimmArchitecture("test_vit")


def test_the_default_tuning_is_the_record_itself() -> None:
    tuning = backbone(recipes={"paper": Recipe("somebody", head=Head("fc", hidden=8))}).tuning("default")
    assert (tuning.recipe, tuning.unfreeze, tuning.head) == ("default", ("layer4",), Head("fc"))
    assert (tuning.training, tuning.resize, tuning.source) == (Training(), "own", None)
    assert (tuning.features, tuning.input_size) == (backbone().features, None)


def test_a_tuning_fills_the_blanks_of_its_recipe_from_the_record() -> None:
    layers = (FeatureLayer("layer3", 192),)
    full = Recipe("somebody", ("layer3",), Head("fc", hidden=8), Training(epochs=3), "squash", (96, 96), layers)
    record = backbone(recipes={"blank": Recipe("nobody"), "full": full, "probe": Recipe("head alone", unfreeze=())})
    blank, filled = record.tuning("blank"), record.tuning("full")
    assert (blank.unfreeze, blank.head, blank.training, blank.resize) == (("layer4",), Head("fc"), Training(), "own")
    assert (blank.source, blank.features, blank.input_size) == ("nobody", record.features, None)
    assert (filled.unfreeze, filled.head) == (("layer3",), Head("fc", hidden=8))
    assert (filled.training, filled.resize, filled.source) == (Training(epochs=3), "squash", "somebody")
    assert (filled.features, filled.input_size) == (layers, (96, 96))
    assert record.tuning("probe").unfreeze == ()  # nothing is not the same as blank


def test_a_recipe_that_is_not_declared_is_told_with_near_misses() -> None:
    with pytest.raises(UnknownNameError) as caught:
        backbone(recipes={"paper": Recipe("somebody")}).tuning("papr")
    message = str(caught.value)
    assert message == "unknown recipe 'papr' of tiny; did you mean 'paper'? (3 known: default, paper, scratch)"


def test_records_made_apart_share_no_recipes() -> None:
    assert backbone().recipes is not backbone().recipes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Fashion-MNIST"),
        ("title", ""),
        ("loader", "package.data.load"),
        ("loader", 3),
        ("classes", ["left", "right"]),
        ("classes", ("left",)),
        ("classes", ("left", "left")),
        ("classes", ("left", "")),
        ("argument", "path"),
        ("argument", ""),
        ("sizes", {"train": 0}),
        ("sizes", {"train": 10.5}),
        ("evaluation_split", ""),
    ],
)
def test_a_data_set_refuses(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        dataset(**{field: value})
    assert {fault["loc"][0] for fault in caught.value.errors()} == {field}


def test_a_data_sets_evaluation_split_is_one_of_those_it_has() -> None:
    assert dataset(sizes={"train": 8, "validation": 2}, evaluation_split="validation").sizes
    assert "evaluation_split is 'test'; expected one of train, validation" in refused(
        lambda: dataset(sizes={"train": 8, "validation": 2})
    )


def test_a_data_sets_loader_may_be_the_function_itself() -> None:
    assert dataset(loader=print).loader is print


def test_a_data_set_says_how_it_is_called() -> None:
    assert dataset().call == "blobs"
    assert dataset(argument="OWNER/NAME").call == "blobs:OWNER/NAME"
