"""Find the restrictive terms in the licences of weights, which bind users of the weights and of derived checkpoints."""

from __future__ import annotations

_NON_COMMERCIAL = "non-commercial use only"
_OWN_TERMS = "terms of its own; read them before use"
_TERMS = (
    ("cc-by-nc", _NON_COMMERCIAL),
    ("fair-noncommercial", _NON_COMMERCIAL),
    ("dinov3", "a checkpoint made from these weights stays under the DINOv3 licence"),
    ("apple", _OWN_TERMS),
    ("nvidia", _OWN_TERMS),
    ("sapiens", _OWN_TERMS),
    ("seer", _OWN_TERMS),
    ("qwen", _OWN_TERMS),
    ("gemma", _OWN_TERMS),
    ("other", _OWN_TERMS),
)


def binding_terms(license: str | None) -> str | None:  # noqa: A002 - the field's word
    """Return the terms that make a licence more restrictive than the usual open licences, or ``None``.

    >>> binding_terms("cc-by-nc-4.0"), binding_terms("apache-2.0")
    ('non-commercial use only', None)
    """
    name = (license or "").lower()
    return next((terms for beginning, terms in _TERMS if name.startswith(beginning)), None)
