"""The wheel: it carries its recipes and finds them wherever it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_wheel_carries_and_finds_every_recipe(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    wheel = next(tmp_path.glob("kdcli-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "elsewhere")
    assert not [name for name in names if name.startswith(("tests/", "shared/"))]
    program = "import kdcli; from kdcli.recipe.catalogue import shipped; print(kdcli.__file__, *sorted(shipped()))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "elsewhere")},
    )  # fmt: skip
    place, *recipes = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path / "elsewhere")
    assert recipes == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
