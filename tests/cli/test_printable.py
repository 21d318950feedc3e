"""What reaches a terminal from outside: seen, never obeyed."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kdcli.cli import session
from kdcli.errors import Problem, RequestError
from kdcli.sanitizing import harmless

HOSTILE = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\x08\x7fe\u202ef\rg"


def table(text: str) -> Table:
    made = Table(escape(text), title=escape(text))
    made.add_row(escape(text))
    return made


def tree(text: str) -> Tree:
    made = Tree(escape(text))
    made.add(Text(text))
    return made


@pytest.mark.parametrize("make", [escape, Text, table, tree])
@pytest.mark.parametrize("stream", ["results", "messages"])
@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_that_a_console_prints_is_obeyed(
    make: Callable[[str], RenderableType], stream: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    console: Console = getattr(session, stream)()
    console.file = written = io.StringIO()
    monkeypatch.setattr(console, "_force_terminal", terminal)
    console.print(make(HOSTILE), "[bold]strong[/]")
    text = written.getvalue()
    plain = text.replace("\x1b[0m", "").replace("\x1b[1m", "").replace("\x1b[3m", "")
    for character in "\x07\x08\x7f\x9b\u202e\r":
        assert character not in plain
    assert "\x1b]0" not in plain
    assert "\x1b[2J" not in plain
    assert "strong" in plain


def test_an_error_shows_a_name_that_would_be_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseException), session.errors_as_exit_codes():  # noqa: B017, PT011 - typer's own, by version
        raise RequestError(Problem(f"data/{HOSTILE}.csv", "is empty"))
    told = capsys.readouterr().err
    assert "is empty" in told
    assert not set("\x1b\x07\x08\x7f\x9b\u202e") & set(told)


def test_what_is_seen_stays_as_it_is() -> None:
    text = "naïve 中文 🙂 עברית\ttab\nline — «x» [b]\u200d"
    assert harmless(text) == text
