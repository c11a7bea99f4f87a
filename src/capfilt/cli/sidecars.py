"""Captions as files beside pictures, as training sets have them: `x.txt` for `x.jpg`. Each is whole or not there."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from capfilt.errors import ConfigError
from capfilt.files import atomic, write_jsonl
from capfilt.inputs.images import SUFFIXES
from capfilt.inputs.texts import plain_text

FAILED = "captions-failed.jsonl"
FIELDS = ("name", "dir", "caption")
_FIELD = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True)
class Form:
    """How a sidecar reads: `prefix`, `template` and `suffix` as they stand, {name} {dir} {caption} filled in.

    ext:      suffix of the file, with or without its dot.
    existing: `skip` leaves what is there, and its picture unseen; `append` and `prepend` put ", " between both texts,
              or a new line where either has several. An empty file counts as none.

    Raises:
        ConfigError: a suffix of pictures, or a field that there is not.
    """

    ext: str
    template: str = "{caption}"
    prefix: str = ""
    suffix: str = ""
    existing: Literal["skip", "overwrite", "append", "prepend"] = "skip"

    def __post_init__(self) -> None:
        bare = self.ext.removeprefix(".")
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", bare) or bare.lower() in SUFFIXES:
            raise ConfigError(f"--ext {self.ext!r}: no suffix for texts; write --ext .txt")
        if unknown := set(_FIELD.findall(self.whole)) - set(FIELDS):
            fields = " ".join(f"{{{name}}}" for name in FIELDS)
            raise ConfigError(f"caption: no field {{{min(unknown)}}} in {self.whole!r}; there are {fields}")
        if "{caption}" not in self.template:
            raise ConfigError(f"--template {self.template!r}: has no {{caption}}")

    @property
    def whole(self) -> str:
        """Everything, fields not filled in."""
        return self.prefix + self.template + self.suffix

    def text(self, picture: Path, caption: str) -> str:
        """One line for a picture. name: the file's without suffix; dir: its folder's."""
        name, folder = (plain_text(part)[0] for part in (picture.stem, picture.absolute().parent.name))
        values = {"name": name, "dir": folder, "caption": caption}
        return " ".join(_FIELD.sub(lambda found: values[found[1]], self.whole).splitlines()).strip()

    def joined(self, before: str, new: str) -> str:
        """What stands in the place of a text that is there; what a run before this one added is not added again."""
        glue = "\n" if "\n" in before + new else ", "
        if self.existing == "append":
            return before if (glue + before).endswith(glue + new) else before + glue + new
        if self.existing == "prepend":
            return before if (before + glue).startswith(new + glue) else new + glue + before
        return new


class Sidecars:
    """The sidecars of some pictures.

    given: each picture with the folder that was named, or its own.
    out:   where the tree below those folders is made again; None for beside the pictures.
    """

    def __init__(self, given: Sequence[tuple[Path, Path]], form: Form, out: Path | None) -> None:
        self.form, self.failed = form, list[dict[str, str]]()
        self.written = self.skipped = self.unchanged = 0
        self._table = (out or Path(os.path.commonpath([folder.absolute() for _, folder in given]))) / FAILED
        self._paths: dict[Path, Path] = {}
        taken: dict[Path, Path] = {}
        for picture, folder in given:
            inside = picture.relative_to(folder)
            path = ((out or folder) / inside).with_name(f"{inside.stem}.{form.ext.removeprefix('.')}")
            first = taken.setdefault(path, picture)
            if first == picture:
                self._paths[picture] = path
            else:
                self.fail(picture, f"same_name: its {path.name} belongs to {first}")

    def to_do(self) -> list[Path]:
        """Pictures that need a caption."""
        if self.form.existing != "skip":
            return list(self._paths)
        todo = [picture for picture, path in self._paths.items() if not _read(path)]
        self.skipped = len(self._paths) - len(todo)
        return todo

    def write(self, picture: Path, captions: Sequence[str]) -> None:
        """Captions, one a line. What was there before is kept once, as `x.txt.bak`."""
        path, new = self._paths[picture], "\n".join(self.form.text(picture, caption) for caption in captions)
        before = _read(path)
        text = self.form.joined(before, new) if before else new
        if text == before:
            self.unchanged += 1
            return
        backup = path.with_name(path.name + ".bak")
        if before and not backup.exists():
            atomic(backup, lambda to: to.write_bytes(path.read_bytes()))
        atomic(path, lambda to: to.write_text(text + "\n", encoding="utf-8"))
        self.written += 1

    def fail(self, picture: Path, error: str) -> None:
        """A picture that has no caption, and why."""
        reason, _, _ = error.partition(":")
        shown, error = (os.fsencode(text).decode("utf-8", "backslashreplace") for text in (str(picture), error))
        self.failed.append({"image": shown, "reason": reason, "error": error})

    def finish(self) -> Path | None:
        """Writes the table of failures, or takes away that of a run before; → where it is."""
        if self.failed:
            write_jsonl(self._table, self.failed)
            return self._table
        self._table.unlink(missing_ok=True)
        return None

    def told(self) -> str:
        """What was done, on one line."""
        counts: dict[str, Any] = {"written": self.written, "skipped": self.skipped, "unchanged": self.unchanged}
        counts["failed"] = len(self.failed)
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "written")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""
