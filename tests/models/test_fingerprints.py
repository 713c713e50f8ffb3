"""The digest of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo import Backbone
from zoo_harness.models.build import build_network
from zoo_harness.models.fingerprints import digest_of_tensors


def test_digest_covers_names_dtypes_shapes_and_every_bit_and_nothing_else(tiny_resnet: Backbone) -> None:
    network = build_network("tiny", tiny_resnet.network)
    state = dict(network.state_dict())
    digest = digest_of_tensors(state.items())
    assert digest == digest_of_tensors(reversed(list(state.items())))
    assert digest == digest_of_tensors(network.to(memory_format=torch.channels_last).state_dict().items())
    name = "layer2.0.bn1.running_var"
    others: list[dict[str, Tensor]] = [
        {**state, name: torch.nextafter(state[name], torch.tensor(9.0))},
        {**state, name: state[name].double()},
        {**state, name: state[name][None]},
        {("x" if key == name else key): value for key, value in state.items()},
        {key: value for key, value in state.items() if key != name},
    ]
    assert len({digest, *(digest_of_tensors(other.items()) for other in others)}) == 6
    assert len(digest_of_tensors([("scalar", torch.tensor(3)), ("half", torch.ones(2).bfloat16())])) == 64
