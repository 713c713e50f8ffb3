"""Records that name the network to build: a timm model, a torchvision model, or a function of an installed package."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from pydantic.dataclasses import dataclass

from zoo.fields import STRICT, FactoryPath


@dataclass(frozen=True, config=STRICT)
class TimmArchitecture:
    """A timm model to build; the tag in its name, such as ``in1k``, selects the preprocessing.

    >>> TimmArchitecture("tf_efficientnet_lite0.in1k").kind
    'timm'
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$")]
    kind: Literal["timm"] = field(default="timm", kw_only=True)


@dataclass(frozen=True, config=STRICT)
class TorchvisionArchitecture:
    """A torchvision model to build; ``torchvision.models.get_model`` must know its name.

    >>> TorchvisionArchitecture("efficientnet_v2_s").name
    'efficientnet_v2_s'
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
    kind: Literal["torchvision"] = field(default="torchvision", kw_only=True)


@dataclass(frozen=True, config=STRICT)
class FactoryArchitecture:
    """A network to build by calling a function ``module:function``, which returns a new ``torch.nn.Module``.

    >>> FactoryArchitecture("my_package.networks:tiny").kind
    'factory'
    """

    name: FactoryPath
    kind: Literal["factory"] = field(default="factory", kw_only=True)


Architecture = Annotated[TimmArchitecture | TorchvisionArchitecture | FactoryArchitecture, Field(discriminator="kind")]
