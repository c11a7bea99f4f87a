"""Nothing in the tree names a machine it was written on, and no file is a drawer for the rest."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
# Put together here, so that this file does not trip over itself.
PATHS = re.compile("|".join(f"(?<![\\w.])/{name}/" for name in ("work", "root", "home/" + r"\w+", "Users/" + r"\w+")))
HOSTS = re.compile(r"\b(?:10|127|192\.168)\.\d+\.\d+(?:\.\d+)?:\d+")


def tracked() -> list[Path]:
    """Files that git follows or would follow."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git here, so nobody can say which files belong")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_machine_paths_or_hosts():
    wrong = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image or an archive
        for number, line in enumerate(text.splitlines(), 1):
            if PATHS.search(line) or HOSTS.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not wrong, "\n".join(wrong)


def test_the_path_check_sees_what_it_should():
    assert PATHS.search("see /" + "work/main") and PATHS.search("'/" + "home/ann/x'")
    assert not PATHS.search("../homework/x") and not PATHS.search("the root/leaf ratio")


def test_no_drawers():
    wrong = [str(path.relative_to(ROOT)) for path in tracked() if DRAWERS & {path.stem, path.parent.name}]
    assert not wrong, wrong


def test_no_unfinished_marks():
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.suffix == ".py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if marks.search(line)
    ]
    assert not wrong, wrong


def test_no_big_files():
    wrong = [f"{p.relative_to(ROOT)}: {p.stat().st_size} bytes" for p in tracked() if p.stat().st_size > 1_000_000]
    assert not wrong, wrong
