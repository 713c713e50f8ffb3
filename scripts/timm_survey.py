"""Prints which families of timm become backbones: one small network of each, derived on the meta device.

    python scripts/timm_survey.py

A family is a module of timm's models. For each the smallest architecture of it that derives is named, or the reason
why none does.
"""

from __future__ import annotations

from zoo import ZooError, load_registry

MOST_TRIES = 3


def main() -> None:
    """Print a table of all families, and how many derive."""
    import timm

    derived = 0
    families = timm.list_modules()
    print("| family | network | trained block | reason |\n|---|---|---|---|")
    for family in families:
        name, modules, reason = _first(family)
        derived += not reason
        print(f"| {family} | {name} | {modules} | {reason} |")
    print(f"\n{derived} of {len(families)} families derive ({100 * derived / len(families):.0f} %)")


def _first(family: str) -> tuple[str, str, str]:
    """Return the first network of a family that derives, of its smallest ones, or the reason of the last refusal."""
    import timm

    names = timm.list_models(module=family)
    reason = "timm lists no network of it"
    for name in sorted(names, key=len)[:MOST_TRIES]:
        try:
            record = load_registry().backbone(f"timm:{name}")
        except ZooError as error:
            reason = str(error).partition(": ")[2] or str(error)
        else:
            return f"`{name}`", f"`{', '.join(record.unfreeze[:2])}`", ""
    return "-", "-", reason.replace("|", "/")


if __name__ == "__main__":
    main()
