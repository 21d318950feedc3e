"""The shipped recipes, and how a name or a path becomes a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdcli.errors import RequestError
from kdcli.recipe.catalogue import BASELINE_RECIPE, DEFAULT_RECIPE, find, shipped
from kdcli.recipe.loading import load

ROOT = Path(__file__).resolve().parents[2]


def test_every_recipe_file_of_the_project_is_shipped() -> None:
    assert set(shipped()) == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_recipe_loads_bears_its_files_name_and_has_a_summary(name: str) -> None:
    recipe = load(find(name)).recipe
    assert recipe.name == name
    assert recipe.summary
    assert "\n" not in recipe.summary


def test_default_and_baseline_are_shipped_and_the_baseline_needs_no_teacher() -> None:
    assert {DEFAULT_RECIPE, BASELINE_RECIPE} <= set(shipped())
    assert load(find(DEFAULT_RECIPE)).recipe.needs_teachers()
    assert not load(find(BASELINE_RECIPE)).recipe.needs_teachers()


def test_path_of_a_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.touch()
    assert find(str(path)) == path


def test_shipped_name_wins_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(BASELINE_RECIPE).touch()
    assert find(BASELINE_RECIPE) == shipped()[BASELINE_RECIPE]


def test_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RequestError, match="there is no such recipe") as caught:
        find("mtbert")
    (problem,) = caught.value.problems
    assert problem.where == "--recipe mtbert"
    assert problem.remedy == "did you mean 'mt-bert'?"
    assert all(name in problem.expected for name in shipped())


@pytest.mark.parametrize("name", ["mine.yaml", "recipes/mine"])
def test_missing_file_is_refused_as_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match="there is no such file"):
        find(name)


def test_folder_is_not_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no such file"):
        find(str(tmp_path))
