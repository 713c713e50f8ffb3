"""The code and commands of a card that load its checkpoint, for a folder or for a repository on the Hub.

A test runs every one of them as it stands in a card, with the folder's own path in place of ``PATH``.
"""

from __future__ import annotations

import shlex

from zoo_harness.records.run import RunRecord
from zoo_harness.reports.markdown import Markdown, fenced
from zoo_harness.reports.wording import without_folders


def zoo_snippet(repository: str | None) -> Markdown:
    """Python that predicts with ``zoo.load``; ``repository``: ``OWNER/NAME``, ``None`` for a folder."""
    return fenced(
        f"""\
import PIL.Image
import zoo

model = zoo.load("{repository or "PATH"}")
label = model.predict(PIL.Image.open("image.jpg"))[0]
print(label)""",
        "python",
    )


def timm_snippet(repository: str | None) -> Markdown:
    """The same with timm alone."""
    name = f"hf-hub:{repository}" if repository else "local-dir:PATH"
    return fenced(
        f"""\
import PIL.Image
import timm
import torch

model = timm.create_model("{name}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config({{}}, model=model))
with torch.inference_mode():
    logits = model(transform(PIL.Image.open("image.jpg").convert("RGB"))[None])
label = model.pretrained_cfg["label_names"][logits.argmax(1).item()]
print(label)""",
        "python",
    )


def transformers_snippet(repository: str | None) -> Markdown:
    """The same with transformers, which takes timm."""
    name = repository or "PATH"
    return fenced(
        f"""\
import PIL.Image
import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification

model = AutoModelForImageClassification.from_pretrained("{name}")
processor = AutoImageProcessor.from_pretrained("{name}")
pixels = processor(PIL.Image.open("image.jpg").convert("RGB"), return_tensors="pt")
with torch.inference_mode():
    label = model.config.id2label[model(**pixels).logits.argmax(1).item()]
print(label)""",
        "python",
    )


def shell_snippet(record: RunRecord, repository: str | None) -> Markdown:
    """Commands: predict, fetch from the Hub, and score again on the data of the run, unless these were in memory."""
    name = repository or "PATH"
    lines = [f"zoo predict {name} image.jpg"]
    if repository:
        lines.append(f"zoo pull {repository} --to FOLDER")
    if record.headline[0] is not None and not record.dataset.in_memory:
        lines.append(shlex.join(["zoo", "eval", name, "--dataset", dataset_named(record), "--epochs", "0"]))
    return fenced("\n".join(lines), "shell")


def dataset_named(record: RunRecord) -> str:
    """The data set as ``--dataset`` takes it, of a path the last part alone."""
    dataset = record.dataset
    return dataset.name if dataset.argument is None else f"{dataset.name}:{without_folders(dataset.argument)}"
