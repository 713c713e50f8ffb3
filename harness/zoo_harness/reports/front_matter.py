"""Write the YAML front matter of a run's model card, which the Hub, timm and leaderboards read."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from zoo.text import one_line
from zoo_harness.records.run import Measurement, RunRecord

# The list is from https://huggingface.co/docs/hub/repositories-licenses. Any other licence is written as "other" with
# its name.
HUB_LICENSES = frozenset(
    """
    apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
    bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
    c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
    cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
    ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0
    isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
    pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown
    """.split()  # noqa: SIM905 - a list would need one line for each licence
)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


def front_matter(record: RunRecord) -> str:
    """Return the YAML that goes between the two lines of dashes; it is valid whatever names the record contains."""
    loaders = ["timm", "transformers"] if record.loads_in_timm else []
    base_model = one_line(record.weights.source) if record.weights.kind in ("timm", "hub") else None
    results, dataset = _evaluation_results(record), hub_dataset(record)
    data = ModelCardData(
        base_model=base_model,
        base_model_relation="finetune" if base_model else None,
        library_name="timm" if loaders else "zoo",
        pipeline_tag="image-classification",
        tags=["image-classification", *loaders, "zoo", "separation-index"],
        datasets=[dataset] if dataset else None,
        metrics=["accuracy"],
        model_name=one_line(f"{record.backbone.name}-{record.dataset.name}") if results else None,
        eval_results=results,
        **_license(record.weights.license),
    )
    return data.to_yaml()


def hub_dataset(record: RunRecord) -> str | None:
    """Return the dataset's repository on the Hub, or ``None`` if the data came from elsewhere."""
    dataset = record.dataset
    if dataset.hub_id or dataset.name != "hf":
        return dataset.hub_id and one_line(dataset.hub_id)
    if not dataset.source.startswith("Hugging Face Hub "):  # the name was never looked up on the Hub
        return None
    named = _HUB_ID.match(dataset.argument or "")
    return named[0] if named else None


def _license(given: str | None) -> dict[str, Any]:
    """Return the licence keys of the front matter, or no keys if the source states no licence."""
    name = one_line(given or "")
    if not name:
        return {}
    if name.lower() in HUB_LICENSES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": name}


def _evaluation_results(record: RunRecord) -> list[EvalResult] | None:
    """Return accuracy and SI for leaderboards, or ``None`` for an unfinished run, which leaderboards cannot mark."""
    accuracy, split = record.headline
    if record.status != "finished" or accuracy is None:
        return None
    metrics = [_result(record, "accuracy", f"Top-1 {record.dataset.name_of(split)} accuracy", accuracy, {})]
    separation = record.results.separation_after
    of_test = split is record.dataset.test
    found = None if separation is None else separation.test if of_test else separation.evaluation
    if separation is not None and found is not None:
        settings = record.settings.separation
        scaled = settings.model_copy(update={"order": 2}).in_words()  # SI does not depend on the order
        name = f"Separation Index of layer {separation.layer}{f', {scaled}' if scaled else ''}"
        index = found.si
        arguments: dict[str, object] = {
            "standard_error": round(index.bootstrap_error, 6),  # the card shows this error, too
            "standard_error_by": "bootstrap",
            "order": 1,
            "distance": settings.metric,
            "layer": separation.layer,
            **({"normalize": "zscore"} if settings.normalize == "zscore" else {}),
        }
        metrics.append(_result(record, "separation_index", name, index, arguments))
    return metrics


def _result(
    record: RunRecord, metric: str, name: str, measured: Measurement, arguments: dict[str, object]
) -> EvalResult:
    dataset = record.dataset
    return EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        # Each value is put on one line, because PyYAML loses unusual line separators.
        dataset_type=hub_dataset(record) or one_line(dataset.name),
        dataset_name=one_line(dataset.title),
        dataset_split=one_line(record.headline[1].split),
        dataset_revision=one_line(dataset.revision) if dataset.revision else None,
        dataset_args={"subset": one_line(dataset.subset)},
        metric_type=metric,
        metric_name=name,
        metric_value=round(measured.value, 6),
        metric_args={"n": measured.n, "standard_error": round(measured.standard_error, 6), **arguments},
    )
