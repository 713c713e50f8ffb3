"""Write cards/NAME.md and the stored parameters, input size and cost of every built-in backbone.

A test fails if one of these files is out of date.
"""

from __future__ import annotations

import json
from pathlib import Path

from zoo import load_registry
from zoo_harness.reports.backbone_card import render_backbone_card
from zoo_harness.reports.backbone_figures import STORED, measure_figures

FOLDER = Path(__file__).resolve().parents[1] / "cards"


def main() -> None:
    """Write all cards, and delete the cards of backbones that no longer exist."""
    registry = load_registry()
    built_in = [name for name in registry.backbones if registry.owner("backbone", name).built_in]
    for stale in {path.stem for path in FOLDER.glob("*.md")} - set(built_in):
        (FOLDER / f"{stale}.md").unlink()
    figures = {name: measure_figures(registry.backbone(name)) for name in sorted(built_in)}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in figures.items())
    (FOLDER / "zoo_cards" / STORED).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    for name in built_in:
        (FOLDER / f"{name}.md").write_text(render_backbone_card(registry.backbone(name)), encoding="utf-8")


if __name__ == "__main__":
    main()
