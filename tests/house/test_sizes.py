"""Houses rot in the tail: the longest file, function and argument list stay in bounds."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINES, FUNCTION, ARGUMENTS = 400, 60, 9
FLAGS = 18  # of a verb: each is looked up by its name


def functions(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def code() -> list[Path]:
    return sorted((ROOT / "src").rglob("*.py"))


def test_files_are_short():
    long = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in code()}
    assert not {name: lines for name, lines in long.items() if lines > LINES}


def test_functions_are_short():
    lengths = {name: (node.end_lineno or 0) - node.lineno + 1 for path in code() for name, node in functions(path)}
    assert not {name: lines for name, lines in lengths.items() if lines > FUNCTION}


def test_argument_lists_are_short():
    counts = {}
    for path in code():
        for name, node in functions(path):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            counts[name] = len([a for a in every if a.arg not in ("self", "cls", "ctx")])
    assert not {
        name: count for name, count in counts.items() if count > (FLAGS if "capfilt/cli/" in name else ARGUMENTS)
    }


def test_every_module_says_what_it_is():
    silent = [str(p.relative_to(ROOT)) for p in code() if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert not silent, silent
