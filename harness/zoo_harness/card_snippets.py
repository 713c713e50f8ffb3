"""The code and commands of a card that load its checkpoint, for a folder or for a repository on the Hub.

A test runs every one of them as it stands in a card, with the folder's own path in place of ``PATH``.
"""

from __future__ import annotations

import shlex

from zoo_harness.card_wording import without_folders
from zoo_harness.markdown import Markdown, fenced
from zoo_harness.run_record import RunRecord


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
    """Commands: predict, and from the Hub fetch and score again."""
    lines = [f"zoo predict {repository or 'PATH'} image.jpg"]
    if repository:
        lines.append(f"zoo pull {repository} --to FOLDER")
        if record.headline[0] is not None:
            lines.append(shlex.join(["zoo", "eval", repository, *scoring_options(record)]))
    return fenced("\n".join(lines), "shell")


def scoring_options(record: RunRecord) -> list[str]:
    """The options that score a checkpoint on the data of the run's headline, without training.

    Of a path the last part alone is in it.
    """
    dataset = record.dataset
    argument = "" if dataset.argument is None else f":{without_folders(dataset.argument)}"
    options = ["--dataset", f"{dataset.name}{argument}", "--epochs", "0"]
    if dataset.val_fraction is not None and record.headline[1] is not dataset.test:
        options += ["--val-fraction", f"{dataset.val_fraction:g}"]
    if dataset.per_class is not None:
        options += ["--per-class", str(dataset.per_class)]
    if dataset.limit is not None:
        options += ["--limit", str(dataset.limit)]
    if len(options) > 4 and record.settings.seed:
        options += ["--seed", str(record.settings.seed)]
    return options
