"""Every option is declared once, and every training setting is an option of both commands and both functions."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import zoo
from zoo import Training
from zoo_harness.cli.app import command
from zoo_harness.records.option import declared
from zoo_harness.records.options import (
    EvalOptions,
    LayersOptions,
    PublishOptions,
    RescoreOptions,
    SeparationOptions,
    StatsOptions,
    TrainingOptions,
    TrainOptions,
)

SETTINGS = {field.name for field in fields(Training)}
COMMANDS = {
    "eval": (EvalOptions, zoo.evaluate),
    "train": (TrainOptions, zoo.train),
    "layers": (LayersOptions, zoo.layers),
    "si": (SeparationOptions, zoo.score_features),
    "stats": (StatsOptions, zoo.dataset_stats),
    "publish": (PublishOptions, zoo.publish),
}


def test_the_training_options_are_the_fields_of_training() -> None:
    assert set(declared(TrainingOptions)) == SETTINGS


@pytest.mark.parametrize("name", ["eval", "train"])
def test_every_training_setting_is_an_option_of_the_command(name: str) -> None:
    assert {parameter.name for parameter in command().commands[name].params} >= SETTINGS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_options_that_its_function_declares(name: str) -> None:
    options, function = COMMANDS[name]
    spelled = {
        parameter.name: parameter.opts[0]
        for parameter in command().commands[name].params
        if parameter.opts[0][0] == "-"
    }
    expected = {option: made.spelling(option) for option, (_kind, made) in declared(options).items()}
    assert {option: spelled[option] for option in expected} == expected
    keywords = inspect.signature(function).parameters["options"]
    assert keywords.annotation == f"Unpack[{options.__name__}]"


def test_rescoring_takes_options_of_an_evaluation() -> None:
    assert declared(RescoreOptions).keys() < declared(EvalOptions).keys()
