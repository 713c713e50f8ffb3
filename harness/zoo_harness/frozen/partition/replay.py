"""Splits a network that :mod:`zoo_harness.split_trace` cannot record, by running its own ``forward`` as it is.

Each batch of kept tensors goes through the whole ``forward`` of the network; calls of the frozen part are answered
from what is kept instead of being carried out (:mod:`zoo_harness.split_pass`). So the code may do what it likes with
values of the part that trains. What the frozen part does must not depend on its values.

Which calls are answered is found out by running the network in training and in inference mode, with two and with
three images. The tail carries out, besides whatever depends on what trains,

- what draws random numbers, changes buffers, is done in one mode alone or gives no row for each image;
- operations without weights, where keeping what they read takes no more memory than keeping what they give.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo_harness.frozen.partition.cut import BATCHES
from zoo_harness.frozen.partition.replay_calls import DEPENDS_ON_NUMBER, IMAGES, NOBODY, Call, TensorKind, Value
from zoo_harness.frozen.partition.replay_pass import Answering, Computing, EnoughError, Plan, Recording, UnforeseenError
from zoo_harness.frozen.partition.side_effects import (
    CannotSplitError,
    attributes_put_back,
    random_states,
    states_put_back,
)
from zoo_harness.models.tuned_network import TunedNetwork

ROUNDS = 20  # of recording: each moves something into the tail, and few networks need more than three


@dataclass(frozen=True, eq=False)
class Replay:
    """The two parts of a network whose ``forward`` is run as it is, where kept tensors come from, and what is reached.

    ``prefix`` takes images and gives what is kept; ``tail`` takes that and gives the logits of every head.
    """

    names: tuple[str, ...]
    prefix: nn.Module
    tail: nn.Module
    reached: frozenset[nn.Module]


def replay_network(tuned: TunedNetwork, example: Tensor) -> Replay:
    """Find out what is to be kept for batches like ``example``, ``(B, 3, H, W)``.

    Raises :class:`CannotSplitError` where values of the frozen part decide what is done, or nothing is won.

    >>> class Halved(nn.Sequential):
    ...     def forward(self, images):
    ...         logits = super().forward(images)
    ...         return logits / 2 if logits.max() > 1 else logits
    >>> network = Halved(nn.Flatten(), nn.Linear(12, 12).requires_grad_(False), nn.Linear(12, 5))
    >>> tuned = TunedNetwork(network, ("2",), ("2",), {"": True, "0": False, "1": False, "2": True})
    >>> replay_network(tuned, torch.rand(4, 3, 2, 2)).names
    ('1',)
    """
    plan = Plan(tuned)
    moved = False
    for _round in range(ROUNDS):
        known = len(plan.in_tail), len(plan.constants)
        recordings = [_record(plan, example, batch, training=mode) for mode in (True, False) for batch in BATCHES]
        read = set().union(*(recording.read for recording in recordings))
        plan.in_tail |= _not_kept(plan, recordings, read)
        if (len(plan.in_tail), len(plan.constants)) != known:
            continue
        if moved:
            return _made(plan, example, recordings, read)
        moved = True
        plan.in_tail |= _moved(plan, read)
    raise CannotSplitError("what it does differs from one run to the next")


class Prefix(nn.Module):
    """Images in, a tuple of what is kept out; for a network in inference mode."""

    def __init__(self, plan: Plan, kept: list[Value], copied: set[Value], changed: list[Tensor]) -> None:
        super().__init__()
        self.network = plan.tuned.network
        self._plan = plan
        self._kept = kept
        self._copied = copied
        self._changed = changed

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """What is kept, a tensor ``(B, ...)`` each. Buffers and random states stay as they were."""
        before = [buffer.clone() for buffer in self._changed]
        computing = Computing(self._plan, len(images), self._kept, self._copied)
        try:
            with states_put_back():
                computing.run(_kind(images), images)
        except EnoughError:
            return tuple(computing.found[name] for name in self._kept)
        finally:
            for buffer, values in zip(self._changed, before, strict=True):
                buffer.copy_(values)
        raise UnforeseenError("it leaves out a part that does not train")


class Tail(nn.Module):
    """Kept tensors in, the logits of every head out; it acts in the mode that the network is in."""

    def __init__(self, plan: Plan, kept: list[Value], copied: set[Value], example: Tensor) -> None:
        super().__init__()
        self.network = plan.tuned.network
        self._plan = plan
        self._kept = kept
        self._copied = copied
        self._kind = _kind(example)

    def forward(self, *kept: Tensor) -> tuple[Tensor, ...]:
        """Logits ``(B, classes)`` of every head."""
        if torch.is_inference_mode_enabled():  # where no tensor notes that it is written to
            with torch.inference_mode(mode=False), torch.no_grad():
                return self.forward(*(values.clone() for values in kept))
        batch = len(kept[0])
        answering = Answering(self._plan, batch, dict(zip(self._kept, kept, strict=True)), self._copied)
        return answering.run(self._kind._replace(shape=(batch, *self._kind.shape[1:])), None)

    def train(self, mode: bool = True) -> Tail:  # noqa: ARG002
        """Do nothing: which modules train is :class:`TunedNetwork`'s business."""
        return self


def _kind(images: Tensor) -> TensorKind:
    return TensorKind(tuple(images.shape), images.stride(), images.dtype, images.device, 0)


def _record(plan: Plan, example: Tensor, batch: int, *, training: bool) -> Recording:
    network = plan.tuned.network
    (plan.tuned.train if training else plan.tuned.eval)()
    images = example[torch.arange(batch, device=example.device) % len(example)]
    recording = Recording(plan, batch, training=training)
    python_and_numpy = random_states()[:-1]
    versions = {name: (buffer, buffer._version) for name, buffer in network.named_buffers()}
    with torch.no_grad(), attributes_put_back(network):
        recording.run(_kind(images), images)
        now = dict(network.named_buffers())
    if random_states()[:-1] != python_and_numpy:
        raise CannotSplitError("it draws random numbers outside of torch")
    for name, (buffer, version) in versions.items():
        if now.get(name) is not buffer:
            raise CannotSplitError(f"its forward method puts another tensor in place of the buffer {name}")
        if buffer._version != version:
            plan.constants.pop(id(buffer), None)
            recording.changed[name] = buffer
    return recording


def _not_kept(plan: Plan, recordings: list[Recording], read: set[Value]) -> set[int]:
    """Calls that cannot be answered the same way always, whatever they would save."""
    for small, large in zip(recordings[::2], recordings[1::2], strict=True):
        if (small.seen ^ large.seen) - plan.in_tail:
            raise CannotSplitError(DEPENDS_ON_NUMBER)
    in_one_mode = recordings[0].seen ^ recordings[2].seen
    seen = [plan.calls.all[number] for number in recordings[0].seen & recordings[2].seen]
    unlike = {call.number for call in seen if len(set(call.operations.values())) > 1 or call.result() is None}
    no_rows = {value.producer for value in read if value.call != IMAGES and _bytes(plan, value) == math.inf}
    return in_one_mode | unlike | no_rows


def _moved(plan: Plan, read: set[Value]) -> set[int]:
    """Operations without weights that the tail had better do itself, from the last to the first."""
    front, moved = set(read), set[int]()

    def outputs(call: Call) -> set[Value]:
        return {value for value in front if value.call == call.number}

    def cost(values: Iterable[Value]) -> float:
        return sum(_bytes(plan, value) for value in values)

    for call in reversed(plan.calls.all):
        plain = not call.weighty and not call.writes and all(value.writer == NOBODY for value in outputs(call))
        if outputs(call) and plain and cost(set(call.inputs) - front) <= cost(outputs(call)):
            moved.add(call.number)
            front = front - outputs(call) | set(call.inputs)
    for number in sorted(moved):
        inputs = set(plan.calls.all[number].inputs)
        others = {value for other in moved - {number} for value in plan.calls.all[other].inputs}
        given = {value for value in read | others if value.call == number}
        made_by_moved = any(value.call in moved for value in inputs)
        if inputs.isdisjoint(read | others) and not made_by_moved and cost(given) <= cost(inputs):
            moved.remove(number)  # nothing is won
    return moved


def _bytes(plan: Plan, value: Value) -> float:
    """Bytes of one image; those of the images themselves count as what nobody wants to keep."""
    return math.inf if value.call == IMAGES else plan.calls.all[value.call].row_bytes(value.place)


def _made(plan: Plan, example: Tensor, recordings: list[Recording], read: set[Value]) -> Replay:
    if not read:
        raise CannotSplitError("what trains does not depend on the images")
    if not _computes(plan, read):
        raise CannotSplitError("nothing that is frozen runs before what trains")
    kept = sorted(read)
    copied = set().union(*(recording.written for recording in recordings))
    reached = recordings[-1].reached  # in inference, as features are collected
    return Replay(
        names=_names(plan, kept),
        prefix=Prefix(plan, kept, copied, [*recordings[-1].changed.values()]),
        tail=Tail(plan, kept, copied, example),
        reached=frozenset(module for module, in_tail in reached.items() if in_tail),
    )


def _computes(plan: Plan, wanted: set[Value]) -> bool:
    """Whether anything with weights is needed for these."""
    waiting, known = [*wanted], set[int]()
    while waiting:
        producers = {value.call for value in waiting} | {value.producer for value in waiting}
        new = producers - known - {IMAGES}
        known |= new
        waiting = [value for number in new for value in plan.calls.all[number].inputs]
    return any(plan.calls.all[number].weighty for number in known)


def _names(plan: Plan, kept: list[Value]) -> tuple[str, ...]:
    """Where each comes from: a module or an operation, with a number where that gives more than one."""
    names: list[str] = []
    for value in kept:
        name = "images" if value.producer == IMAGES else plan.calls.all[value.producer].name
        again = sum(known.partition(" (")[0] == name for known in names)
        names.append(f"{name} ({again + 1})" if again else name)
    return tuple(names)
