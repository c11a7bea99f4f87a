"""`capfilt clean` on real collections: what the rules take out, what becomes of the rest, and how right that is.

    python -m capfilt.recipes.real_collections DATA [--captioner M] [--filter M] [-o OUT]

| in DATA | what it is |
|---|---|
| `flickr8k/noisy/web.jsonl`, `val-noisy.jsonl` | photographs with texts that fit or do not, and their truth |
| `cc12m-32`, `coco` | photographs with texts from the web, and with people's captions |
| `webtext/*.jsonl` | texts of the web without images: only the rules about texts have a say |

What is not there is passed over, and said. Without names, the models are those of `runs/flickr`, which learned from
`flickr8k/noisy/web.jsonl` but not from `val-noisy.jsonl`; where that run is not, the demo's own. Each collection is
decided twice: by the paper's rule, and with the best .4 of its web texts let through. Two minutes on two cores.
"""

import argparse
import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from capfilt.clean.columns import INTAKE, MEASURED
from capfilt.clean.config import CleanConfig
from capfilt.clean.deciding import decide
from capfilt.clean.intake import tasks
from capfilt.clean.policies import Policy
from capfilt.clean.rules import NEEDS, Rules, flags
from capfilt.clean.stages import Models
from capfilt.clean.truth import truth_of
from capfilt.data.sources import open_source
from capfilt.errors import DataError
from capfilt.files import read_json
from capfilt.recipes import own
from capfilt.recipes.cleaning import clean
from capfilt.report.clean import Truth

COLLECTIONS = ("flickr8k/noisy/web.jsonl", "flickr8k/noisy/val-noisy.jsonl", "cc12m-32", "coco")
TEXTS = "webtext/*.jsonl"
TRAINED = Path("runs/flickr/cleaners")
POLICIES = {"blip": Policy(), "blip, top .4": Policy(top=0.4)}
OF_TEXTS = Rules(min_px=0, max_aspect=0, min_spread=0, duplicates="off")  # there is no image to look at
TOGETHER = 5000

Told = dict[str, Any]


def real_collections(data: Path, models: Models, out: Path) -> dict[str, Told]:
    """Cleans each collection of `data` into a folder of `out`; collection → what `cleaned` or `ruled` says.

    Raises DataError where none of them is there.
    """
    found: dict[str, Told] = {}
    for name in COLLECTIONS:
        if (data / name).exists():
            found[name] = cleaned(data / name, models, out / name.replace("/", "-"))
        else:
            warnings.warn(f"{data / name}: not there, passed over", stacklevel=2)
    for path in sorted(data.glob(TEXTS)):
        found[str(path.relative_to(data))] = ruled(path)
    if not found:
        raise DataError(f"{data}: holds none of {', '.join((*COLLECTIONS, TEXTS))}")
    return found


def cleaned(source: Path, models: Models, out: Path) -> Told:
    """One collection: {"seconds" of the first decision, "rules": {rule: rows}, "policies": {name: counts, truth}}."""
    began = time.perf_counter()
    told: Told = {}
    for name, policy in POLICIES.items():
        if not told:
            counts: dict[str, Any] = clean(CleanConfig(str(source), models), out, policy)
            seconds = time.perf_counter() - began
        else:
            counts, _ = decide(out, policy)
        told[name] = {"counts": counts, "truth": truth_of(out)}
    return {"seconds": seconds, "rules": read_json(out / "decisions.json")["rules"], "policies": told}


def ruled(source: Path) -> Told:
    """Texts without images: {"rows", "rules": {rule: rows}, "seconds"}.

    Each row fails for want of an image, and rules pass over what failed; so here they are told that nothing did.
    """
    began = time.perf_counter()
    broken = flags(_texts(source), OF_TEXTS)["rule"]
    return {
        "rows": len(broken),
        "rules": dict(sorted(Counter(broken.drop_null().to_pylist()).items())),
        "seconds": time.perf_counter() - began,
    }


def _texts(source: Path) -> Iterator[pa.Table]:
    place = INTAKE.get_field_index("failed")
    for _, table in tasks(open_source(source, captions="optional"), TOGETHER, ()):
        table = table.set_column(place, INTAKE.field("failed"), pa.nulls(len(table), pa.string()))
        for field in MEASURED:
            table = table.append_column(field, pa.nulls(len(table), field.type))
        yield table.select(list(NEEDS))


def trained() -> tuple[str, str]:
    """Captioner and filter for whoever has named none."""
    if all((TRAINED / part / "done.json").is_file() for part in ("captioner", "filter")):
        return str(TRAINED / "captioner"), str(TRAINED / "filter")
    return str(own.captioner()), str(own.filter())


# ---- tables -----------------------------------------------------------------------------------------------------


def tables(found: dict[str, Told]) -> str:
    """What was found, as Markdown."""
    outcomes = "in", "kept", "replaced", "dropped", "failed"
    heads = "collection", "policy", *outcomes, "out by rules", "fit before", "fit of the kept", "recall", "seconds"
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, told in found.items():
        rules = ", ".join(f"{rule} {rows:,}" for rule, rows in told["rules"].items()) or "none"
        if "rows" in told:
            lines.append(f"| {name} | texts alone | {told['rows']:,} | | | | | {rules} | | | | {told['seconds']:.1f} |")
            continue
        seconds = f"{told['seconds']:.0f}"
        for policy, decided in told["policies"].items():
            counts = " | ".join(f"{decided['counts'][word]:,}" for word in outcomes)
            truth: Truth | None = decided["truth"]
            shares = [
                _short(value) for value in ((truth.before, truth.precision, truth.recall) if truth else [None] * 3)
            ]
            lines.append(f"| {name} | {policy} | {counts} | {rules} | {' | '.join(shares)} | {seconds} |")
            seconds = ""
    for name, told in found.items():
        lines += _kinds(name, [decided["truth"] for decided in told.get("policies", {}).values()])
    return "\n".join(lines)


def _kinds(name: str, truths: Sequence[Truth | None]) -> list[str]:
    """A collection's kinds of text, with how many are kept by each policy, and the areas; nothing without truth."""
    known = [{(one.kind, one.fits): one for one in truth.kinds} for truth in truths if truth]
    if not known or not truths[0]:
        return []
    lines = ["", f"| {name} | fits | texts | out by rules | {' | '.join(f'kept: {one}' for one in POLICIES)} |"]
    lines.append("|---" * (4 + len(POLICIES)) + "|")
    for key, one in known[0].items():
        kept = " | ".join(f"{by[key].kept:,} ({_short(by[key].kept / one.texts)})" for by in known)
        lines.append(f"| {one.kind} | {'yes' if one.fits else 'no'} | {one.texts:,} | {one.ruled:,} | {kept} |")
    if truths[0].auc:
        areas = ", ".join(f"{head} {_short(area)}" for head, area in truths[0].auc.items())
        lines += ["", f"AUC, all that fit against all that do not: {areas} (ITC at weight {truths[0].weight:g})."]
    return lines


def _short(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}".lstrip("0")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command above; prints tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--captioner")
    parser.add_argument("--filter")
    parser.add_argument("-o", "--out", type=Path, help="a folder for the runs; they are deleted without")
    given = parser.parse_args(arguments)
    captioner, judge = (given.captioner, given.filter) if given.captioner and given.filter else trained()
    models = Models(given.captioner or captioner, given.filter or judge)
    with contextlib.nullcontext(given.out) if given.out else TemporaryDirectory(prefix="capfilt-") as out:
        found = real_collections(given.data, models, Path(out))
    print(tables(found))


if __name__ == "__main__":
    main()
