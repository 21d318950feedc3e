"""The wheel: it carries its recipes and templates, and finds its recipes wherever it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return next(folder.glob("kdcli-*.whl"))


def test_wheel_carries_the_report_and_its_templates(wheel: Path) -> None:
    room = "kdcli/evaluation/report/"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {f"{room}report.html.j2", f"{room}tables.html.j2", f"{room}report.css", f"{room}html_page.py"} <= set(names)
    assert {"kdcli/sweep/sweep.html.j2", "kdcli/recipe/shipped/sweep.schema.json"} <= set(names)


def test_wheel_carries_and_finds_every_recipe(wheel: Path, tmp_path: Path) -> None:
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
