"""What the documents say is so: commands parse or run, exit codes and reasons are all listed, links lead somewhere."""

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from capfilt import errors
from capfilt.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
ERRORS = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every command line in the sh blocks of the documents."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return sorted({line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")})


def of(program: str) -> list[list[str]]:
    split = [shlex.split(line) for line in commands()]
    return [words[1:] for words in split if words[0].removeprefix(".venv/bin/") == program]


def test_documents_only_use_programs_that_are_checked_here():
    programs = {shlex.split(line)[0].removeprefix(".venv/bin/") for line in commands()}
    assert programs <= {"make", "capfilt"}
    assert of("make") and of("capfilt")


@pytest.mark.parametrize("words", of("capfilt"), ids=" ".join)
def test_documented_verbs_and_flags_exist(words):
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    context = group.make_context("capfilt", list(words), resilient_parsing=True)
    _, verb, rest = group.resolve_command(context, list(words))
    if "--help" not in rest:
        verb.make_context(words[0], rest, parent=context).close()  # raises on a flag that does not exist


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_documented_targets_exist(words):
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [w for w in of("capfilt") if "--help" in w or "--list" in w], ids=" ".join)
def test_cheap_commands_run(words, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-m", "capfilt", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_links_lead_somewhere():
    wrong = []
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                wrong.append(f"{path.name}: {target}")
    assert not wrong, wrong


def table_rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.match(r"\| \d", line)]


def test_exit_codes_are_listed_as_errors_has_them():
    assert table_rows(ERRORS) == table_rows(errors.__doc__ or "")
    listed = dict(re.findall(r"\| (\d+) \| `(\w+)`", ERRORS))
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.CapfiltError)]
    codes = {kind.exit_code for kind in kinds}
    assert codes == {int(code) for code in listed}
    for code, name in listed.items():
        assert getattr(errors, name).exit_code == int(code)


REASON_AT = {"ImageError": 0, "_Unusable": 0, "Failure": 1}  # which argument of these calls is the reason


def raised_reasons() -> set[str]:
    """Every reason that the source gives a failed image or row, both sides of an `a if b else c` among them."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REASON_AT):
                continue
            place = REASON_AT[node.func.id]
            given = node.args[place : place + 1] + [k.value for k in node.keywords if k.arg == "reason"]
            sides = [s for g in given for s in ([g.body, g.orelse] if isinstance(g, ast.IfExp) else [g])]
            found |= {s.value for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, str)}
    return found


def test_row_reasons_are_listed():
    table = ERRORS.partition("| reason |")[2].partition("| decision |")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    given = raised_reasons()
    assert "truncated" in given
    assert given <= listed, f"not in docs/errors.md: {given - listed}"
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    gone = {reason for reason in listed if f'"{reason}"' not in source}
    assert not gone, f"in docs/errors.md, but given nowhere: {gone}"
