"""Imports point down the list in ARCHITECTURE.md, function-level ones too; models do not know each other."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "capfilt"
TOP = ("__main__", "__init__")  # starts the command line; opens the front door (`capfilt.load`)


def layers(text: str) -> dict[str, int]:
    """Room → height, from the block marked `layers`; 0 is the lowest."""
    block = text.split("```layers\n", 1)[1].split("```", 1)[0]
    rows = [line.split() for line in reversed(block.splitlines())]
    return {room: height for height, row in enumerate(rows) for room in row}


def imports(path: Path, code: str) -> list[tuple[int, str]]:
    """(line, dotted name) of everything from capfilt that a file imports, wherever in the file."""
    package = ("capfilt", *path.relative_to(SOURCE).parent.parts)
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*start, *filter(None, [node.module])])
            found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.startswith("capfilt.")]


def complaints(path: Path, code: str, height: dict[str, int]) -> list[str]:
    own = path.relative_to(SOURCE).with_suffix("").parts
    if own[0] in TOP:
        return []
    wrong = []
    for line, name in imports(path, code):
        other = name.split(".")[1:]
        if other[0].startswith("__"):  # capfilt.__version__
            continue
        if other[0] != own[0] and height[other[0]] >= height[own[0]]:
            wrong.append(f"{'/'.join(own)}.py:{line} imports {name}: {own[0]} stands no higher than {other[0]}")
        if own[0] == "models" and other[0] == "models" and own[1] != "__init__" and not own[1].startswith(other[1]):
            wrong.append(f"{'/'.join(own)}.py:{line} imports {name}: a model does not know another model")
    return wrong


def test_every_room_stands_on_a_layer():
    height = layers((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    rooms = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in SOURCE.rglob("*.py")}
    assert rooms ^ set(height) == {"__init__", "__main__"}


def test_imports_point_down():
    height = layers((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    wrong = [
        line
        for path in sorted(SOURCE.rglob("*.py"))
        for line in complaints(path, path.read_text(encoding="utf-8"), height)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_check_sees_what_it_should():
    height = layers("```layers\ncli\ntrain predict\nmodels\nerrors\n```")
    inside = "def f():\n    from capfilt.cli.app import main"
    assert complaints(SOURCE / "train/loop.py", inside, height)
    assert complaints(SOURCE / "train/loop.py", "import capfilt.predict.beam", height)  # sideways
    assert complaints(SOURCE / "train/loop.py", "from .. import predict", height)
    assert complaints(SOURCE / "models/clip.py", "from capfilt.models import blip", height)
    assert not complaints(SOURCE / "train/loop.py", "from . import steps\nfrom capfilt import errors", height)
