"""The language of sweep files written down from the code, as a JSON Schema for editors.

``python -m kdcli.sweep.schema_file`` writes ``recipes/sweep.schema.json`` into a checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdcli.recipe.catalogue import SWEEP_SCHEMA
from kdcli.sweep.sweep_schema import Sweep


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a sweep file."""
    found = Sweep.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "kdcli sweep"}


def schema_text() -> str:
    """The JSON Schema as it is shipped."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def write(root: Path) -> None:
    """Write the schema into a checkout."""
    (root / "recipes" / SWEEP_SCHEMA).write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).resolve().parents[2])
