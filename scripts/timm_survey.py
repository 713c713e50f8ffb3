"""Print for each family of timm whether zoo can derive a backbone from it, using one small network per family.

    python scripts/timm_survey.py

A family consists of the networks in one module of timm.models. To derive a backbone means to find the trained block,
head and feature layers of a network on torch's meta device. The table names the smallest network of each family that
zoo can derive, or the reason why zoo can derive none.
"""

from __future__ import annotations

from zoo import ZooError, load_registry

MOST_TRIES = 3


def main() -> None:
    """Print a table of all families, and how many families zoo can derive."""
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
    """Return the smallest network of a family that zoo can derive, or the reason why the last attempt failed."""
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
