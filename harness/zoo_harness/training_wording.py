"""Words for how a network was trained, for cards."""

from __future__ import annotations

from zoo.backbone import Training
from zoo_harness.run_record import FrozenPartRecord

_CHANGES = {
    "crop": "crops of the image padded by an eighth of its side",
    "flip": "left-right flips",
    "rotate": "rotations by up to 15 degrees",
}


def optimizer_in_words(training: Training) -> str:
    """The optimizer with the settings it has.

    >>> optimizer_in_words(Training(optimizer="sgd", momentum=0.9, weight_decay=5e-4))
    'sgd, momentum 0.9, weight decay 0.0005'
    """
    parts: list[str] = [training.optimizer]
    if training.momentum:
        parts.append(f"{'Nesterov ' if training.nesterov else ''}momentum {training.momentum:g}")
    if training.weight_decay:
        parts.append(f"weight decay {training.weight_decay:g}")
    return ", ".join(parts)


def learning_rate_in_words(training: Training) -> str:
    """The learning rate and what becomes of it.

    >>> learning_rate_in_words(Training(schedule="multistep", milestones=(60, 120), decay=0.2, warmup_epochs=1))
    '0.0001, times 0.2 after epochs 60, 120, rising over the first epoch'
    """
    parts = [f"{training.learning_rate:g}"]
    if training.schedule == "multistep":
        parts.append(f"times {training.decay:g} after epochs {', '.join(map(str, training.milestones))}")
    if training.schedule == "cosine":
        parts.append("falling to 0 as a cosine")
    if training.warmup_epochs:
        first = "epoch" if training.warmup_epochs == 1 else f"{training.warmup_epochs:g} epochs"
        parts.append(f"rising over the first {first}")
    return ", ".join(parts)


def training_rows(training: Training) -> list[tuple[str, str]]:
    """Rows for the settings that most runs leave alone.

    >>> training_rows(Training(augment=("flip",), keep="best"))
    [('random changes of images', 'left-right flips'), ('checkpoint', 'of the epoch with the best evaluation accuracy')]
    """
    rows = []
    if training.label_smoothing:
        rows.append(("label smoothing", f"{training.label_smoothing:g}"))
    if training.class_weights == "balanced":
        rows.append(("class weights", "balanced: n / (classes x images of the class)"))
    if training.augment:
        often = f"; {training.views} views of each image" if training.views else ""
        rows.append(("random changes of images", ", ".join(_CHANGES[name] for name in training.augment) + often))
    if training.patience:
        rows.append(("stopped early", f"after {training.patience} epochs without a better evaluation accuracy"))
    if training.keep == "best":
        rows.append(("checkpoint", "of the epoch with the best evaluation accuracy"))
    return rows


def training_in_words(training: Training) -> str:
    """All settings in one line: the main ones, then in parts between semicolons what is not as by default.

    >>> training_in_words(Training(optimizer="sgd", momentum=0.9, schedule="cosine", augment=("flip",)))
    '20 epochs, sgd 0.0001, batch 32; momentum 0.9; learning rate falling to 0 as a cosine; random changes of ...'
    """
    optimizer, *settings = optimizer_in_words(training).split(", ")
    rate, *course = learning_rate_in_words(training).split(", ", maxsplit=1)
    main = f"{training.epochs} epochs, {optimizer} {rate}, batch {training.batch_size}"
    parts = [", ".join(settings)] if settings else []
    parts += [f"learning rate {words}" for words in course]
    parts += [f"{name}: {words}" for name, words in training_rows(training)]
    return "; ".join([main, *parts])


def frozen_part_in_words(made: FrozenPartRecord | None) -> str:
    """How often the frozen part ran.

    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("blocks.5 192x7x7",), bytes_per_image=37632))
    'ran once for each image; every epoch trained the rest on what it gave (blocks.5 192x7x7)'
    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("norm 768",), computed=90, seconds=6.25))
    'ran once for each image, in 6.2 s that the seconds per epoch leave out; every epoch trained ...'
    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("norm 768",), computed=0, seconds=0.01))
    'had run once for each image in an earlier run; every epoch trained the rest on what it gave (norm 768)'
    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("norm 768",), replayed=True))
    "ran once for each image; ... on what it gave (norm 768), replayed by the network's own code"
    """
    if made is None:
        return "not reached"
    if made.reason is not None:
        return f"ran in every epoch: {made.reason}"
    if made.computed == 0:
        once = "had run once for each image in an earlier run"
    else:
        taken = "" if made.seconds is None else f", in {made.seconds:.1f} s that the seconds per epoch leave out"
        once = f"ran once for each image{taken}"
    way = ", replayed by the network's own code" if made.replayed else ""
    return f"{once}; every epoch trained the rest on what it gave ({', '.join(made.kept)}){way}"
