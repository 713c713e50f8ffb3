"""Field types of the records: names, paths, digests and numbers that pydantic checks when a record is created."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

STRICT = ConfigDict(extra="forbid", strict=True)

RELATIVE = r"\w[\w.-]*(/\w[\w.-]*)*"  # no component begins with a dot, so no path escapes its folder through ".."
OWN_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
BackboneName = Annotated[
    str,
    StringConstraints(pattern=r"^([a-z0-9][a-z0-9_]{0,63}|[a-z0-9][a-z0-9_]*:[a-z0-9][a-z0-9_.]*)$", max_length=128),
]
ModulePath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
ModulePattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_*?\[\]!-]+(\.[A-Za-z0-9_*?\[\]!-]+)*$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
HubId = Annotated[str, StringConstraints(pattern=f"^{OWN_NAME}/{OWN_NAME}$", max_length=193)]
HttpsFolder = Annotated[
    str, StringConstraints(pattern=rf"^https://[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:[0-9]+)?/({RELATIVE}/)?$")
]
FactoryPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")]
Text = Annotated[str, StringConstraints(min_length=1)]
LARGEST_COUNT = 10**15  # the limit for numbers of images, parameters or bytes; a double represents it exactly
MOST_EPOCHS = 10**9

Pixels = Annotated[int, Field(gt=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
