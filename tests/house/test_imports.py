"""A bare install can import every module, and what needs no torch does not load it."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "capfilt"
NAMES = {
    "pillow": "PIL",
    "faiss-cpu": "faiss",
    "python-multipart": "multipart",
    "prometheus-client": "prometheus_client",
}
NOT_OURS = ("matplotlib", "scipy", "pandas", "sklearn", "nltk", "einops", "torchvision", "timm", "cv2", "requests")

BLOCKED = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"not in a bare install: {{name}}", name=name)

sys.meta_path.insert(0, Absent())
import capfilt
names = [m.name for m in pkgutil.walk_packages(capfilt.__path__, "capfilt.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def requirement_name(text: str) -> str:
    name = text
    for mark in "[<>=!~; ":
        name = name.partition(mark)[0]
    return NAMES.get(name, name.replace("-", "_"))


def declared() -> tuple[set[str], set[str]]:
    """Import names of the base dependencies and of those that only an extra brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    base = {requirement_name(item) for item in project["dependencies"]}
    extra = {requirement_name(item) for items in project["optional-dependencies"].values() for item in items}
    return base, extra - base


def run(*arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=120, check=False
    )


def test_every_module_imports_on_a_bare_install():
    _, extra = declared()
    done = run("-c", BLOCKED.format(blocked={*extra, *NOT_OURS}))
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= len(list(SOURCE.glob("cli/*.py")))


def test_only_declared_packages_are_imported():
    base, extra = declared()
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - base - {"capfilt"}
            wrong += [f"{path.relative_to(ROOT)}:{node.lineno} {top}" for top in tops - extra]
    assert not wrong, wrong


def test_capfilt_and_its_command_line_load_no_torch():
    code = "import sys, capfilt, capfilt.cli.app; print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    done = run("-c", code)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_help_of_every_verb_loads_no_torch():
    code = """
import sys
from typer.testing import CliRunner
from capfilt.cli.app import VERBS, app
for verb in ("", *VERBS):
    done = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert done.exit_code == 0 and "Usage: " in done.output, (verb, done.output)
assert "torch" not in sys.modules
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr[-2000:]
