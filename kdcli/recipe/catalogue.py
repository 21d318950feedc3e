"""The recipes that come with kdcli, and how a name or a path becomes a recipe file."""

from __future__ import annotations

from pathlib import Path

from kdcli.errors import Problem, RequestError, did_you_mean

DEFAULT_RECIPE = "kdcli"
BASELINE_RECIPE = "finetune"
SCHEMA = "recipe.schema.json"
SWEEP_SCHEMA = "sweep.schema.json"
MOST_BYTES = 1 << 18  # a shipped recipe has less than 2 kB; PyYAML reads so many in about a second

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "shipped"
_CHECKOUT = _PACKAGE.parent.parent / "recipes"


def shipped() -> dict[str, Path]:
    """The shipped recipes by name: from inside the wheel, or from ``recipes/`` of a checkout."""
    return {path.stem: path for path in sorted(_folder().glob("*.yaml"))}


def schema_file(name: str = SCHEMA) -> Path:
    """The JSON Schema of a recipe, or of another kind of file, for editors."""
    return _folder() / name


def _folder() -> Path:
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def find(name: str, flag: str = "--recipe") -> Path:
    """The file of a recipe that is given by its shipped name or by its path; ``flag`` names in messages who asked.

    Raises:
        RequestError: there is neither such a recipe nor such a file.
    """
    recipes = shipped()
    if name in recipes:
        return recipes[name]
    path = Path(name)
    if path.is_file():
        return path
    looks_like_path = path.suffix in (".yaml", ".yml") or path.parent != Path(".")
    raise RequestError(
        Problem(
            f"{flag} {name}",
            "there is no such file" if looks_like_path else "there is no such recipe",
            "one of " + ", ".join(recipes) + ", or the path of a YAML file",
            remedy=did_you_mean(name, recipes),
        )
    )


def read(path: Path, kind: str = "recipe") -> str:
    """The text of a recipe file, or of another ``kind`` of file in the recipe's language.

    Raises:
        RequestError: it cannot be read, is no text, or is far too long for a recipe.
    """
    try:
        refuse_too_long(path.stat().st_size, str(path))
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(Problem(str(path), f"cannot be read as a {kind}", "UTF-8 text", _reason(error))) from error


def refuse_too_long(size: int, origin: str) -> None:
    """Refuse what is too long for a recipe before anything looks inside it.

    Args:
        size: in bytes, or characters.
        origin: the file or flag, for the message.

    Raises:
        RequestError: it is longer than :data:`MOST_BYTES`.
    """
    if size > MOST_BYTES:
        raise RequestError(Problem(origin, f"is too long for a recipe ({size:,} bytes)", f"at most {MOST_BYTES:,} bytes"))


def _reason(error: OSError | UnicodeDecodeError) -> str:
    """Why a file cannot be read, without anything of what is in it."""
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at byte {error.start + 1}"
    return error.strerror or type(error).__name__


def remarks(path: Path) -> dict[str, list[str]]:
    """What a shipped recipe's comments say of its paper: where it ``deviates``, and what was left ``open``."""
    found: dict[str, list[str]] = {"deviates": [], "open": []}
    for line in read(path).splitlines():
        for kind, texts in found.items():
            if line.startswith(f"# {kind}: "):
                texts.append(line.removeprefix(f"# {kind}: "))
    return found


def opening(path: Path) -> dict[str, str]:
    """The texts that a shipped recipe begins with: its name, its summary, its paper.

    For a list of all of them YAML would take longer than everything else. In shipped recipes each of these texts is one line,
    plain or in double quotes, without escapes.
    """
    texts = {}
    for line in read(path).splitlines():
        key, colon, text = line.partition(": ")
        if not colon or line.startswith("#"):
            break
        texts[key] = text.strip('"')
    return texts
