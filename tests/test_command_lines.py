"""A slip on a script's command line is answered by one sentence that says what to do, before anything runs; no traceback."""

import importlib
import pathlib
import re
import socket

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, script: str, *words: str) -> tuple[int, str]:
    """Exit status and all that the script prints."""
    monkeypatch.setattr("sys.argv", [f"{script}.py", *words])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(script).main()
    printed = capsys.readouterr()
    return int(stopped.value.code), printed.out + printed.err


@pytest.mark.parametrize("script", ["execute_book", "time_book"])
def test_a_notebook_that_is_not_there_is_named_before_any_is_run(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(f"{script}.run", lambda path: pytest.fail(f"{path} was run"))
    status, text = said(monkeypatch, capsys, script, str(ROOT / "book/ground/00_start_here.ipynb"), "book/ground/00_start_her.ipynb")
    assert status == 2 and "no such notebook: book/ground/00_start_her.ipynb; name it as in book/ground/00_start_here.ipynb" in text


@pytest.mark.parametrize("script", ["read_book", "check_site", "page_weight"])
def test_a_folder_without_a_book_is_named(script: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    status, text = said(monkeypatch, capsys, script, str(tmp_path))
    assert status == 2 and f"no book in {tmp_path}" in text and "make book" in text


def test_a_port_that_is_taken_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "index.html").write_text("<h1>The book</h1>")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = said(monkeypatch, capsys, "read_book", str(tmp_path), "--no-browser", "--port", str(port))
    assert status == 2 and f"port {port}: " in text and "leave --port out" in text


@pytest.mark.parametrize("script", COMMANDS)
def test_the_help_begins_with_what_the_script_is_for_and_explains_every_option(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, text = said(monkeypatch, capsys, script, "--help")
    first = str(importlib.import_module(script).__doc__).splitlines()[0]
    assert status == 0 and first.split(":")[0] in text
    bare = [line for line in text.splitlines() if re.match(r"^  (-\S+(?: \w+)?|[a-z]+)$", line)]
    assert not bare, f"{script}.py says nothing about {bare}"
