"""What needs no model of a run: deciding anew, the page, how far it is (`capfilt decide`, `report`, `status`)."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from capfilt.clean.fitting import fit_run
from capfilt.clean.ledger import Ledger
from capfilt.clean.policies import Policy
from capfilt.clean.telling import gather
from capfilt.clean.views import decide_run
from capfilt.config import from_dict, with_sets
from capfilt.errors import ConfigError
from capfilt.files import lease, read_json
from capfilt.report.clean import write_clean_report
from capfilt.runtime import sigterm_raises

RUN, WHOLE, DECISIONS = "run.json", "whole.json", "decisions.json"


def begun(out: Path) -> Any:
    """What `run.json` says. Raises ConfigError where no run is."""
    if not (out / RUN).is_file():
        raise ConfigError(f"{out}: no run of capfilt clean ({RUN} is missing)")
    return read_json(out / RUN)


def decide(
    out: Path,
    policy: Policy | None = None,
    sets: Iterable[str] = (),
    fitted: bool = False,
    precision: float | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Decides a run anew; → counts, and lines about what was fitted. Without a policy or sets, as it was last.

    fitted: the threshold is placed by what people said of the texts, at best F1 or at the lowest of that `precision`.
    """
    begun(out)
    sets, told = list(sets), []
    with lease(out), sigterm_raises():
        policy = with_sets(policy or (Policy() if sets else last_policy(out)), sets)
        if fitted:
            found = fit_run(out, precision)
            policy = dataclasses.replace(policy, threshold=found.threshold, top=None, by=None)
            told.append(
                f"threshold {found.threshold:.4f}: precision {found.precision:.3f}, recall {found.recall:.3f} on "
                f"{found.accepted} accepted and {found.rejected} rejected texts"
            )
        counts = decide_run(out, policy)
        tell(out)
    return counts, told


def last_policy(out: Path) -> Policy:
    """The one that a run was decided by last; the paper's where it never was."""
    path = out / DECISIONS
    return from_dict(Policy, read_json(path)["policy"]) if path.is_file() else Policy()


def tell(out: Path) -> Path:
    """Writes the page about a run; its path."""
    return write_clean_report(out / "report", gather(out))


def status(out: Path) -> dict[str, Any]:
    """How far a run is: `in` (rows looked at), `kept`, `replaced`, `dropped`, `failed`, `done`, and rows `judged`.

    What became of them is counted once all is judged and decided; until then it is 0.
    """
    begun(out)
    ledger = Ledger(out)
    rows, judged = ledger.rows("rows"), ledger.rows("scores")
    counts = {"in": rows, "kept": 0, "replaced": 0, "dropped": 0, "failed": 0}
    path = out / DECISIONS
    decided: dict[str, Any] = read_json(path) if path.is_file() else {"done": False, "counts": {}}
    done = (out / WHOLE).is_file() and decided["done"] and rows == judged == decided["counts"]["in"]
    if done:
        counts = {name: decided["counts"][name] for name in counts}
    return {**counts, "done": done, "judged": judged}
