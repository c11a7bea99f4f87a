"""`capfilt clean`: CapFilt over a collection; `retry`: once more what failed; `status`: how far a run is."""

import contextlib
import json
import os
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from capfilt.clean.config import CleanConfig
    from capfilt.clean.engines import Engine
    from capfilt.clean.policies import Policy

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the run.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that capfilt clean wrote.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]
PolicyName = Annotated[
    str | None,
    typer.Option("--policy", help="blip, replace-low, best, both or keep-web.  [default: blip]"),
]
Threshold = Annotated[
    float | None, typer.Option(min=-1, max=1, help="The score from which a text fits.  [default: 0.5]")
]
Top = Annotated[
    float | None, typer.Option(min=0, max=1, help="In the place of a threshold: the best share of the web texts.")
]
By = Annotated[str | None, typer.Option(help="Column by whose values --top counts, such as source.")]
FailRate = Annotated[float, typer.Option(min=0, max=1, help="Leave with 3 where a larger share of the rows fails.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting.")]


class Works(StrEnum):
    """Where the work is done."""

    local = "local"
    ray = "ray"


EngineName = Annotated[Works, typer.Option("--engine", help="This machine's devices, or a Ray cluster.")]
Address = Annotated[str | None, typer.Option("--ray-address", help="Of the cluster.  [default: one of its own]")]


def clean(
    source: Annotated[str, typer.Argument(metavar="IN", help="A folder, table, shards, hf:owner/name, list of URLs.")],
    out: Out,
    captioner: Annotated[str | None, typer.Option(help="Model that writes.  [default: the demo's own]")] = None,
    judge: Annotated[str | None, typer.Option("--filter", help="Model that judges.  [default: the demo's own]")] = None,
    policy: PolicyName = None,
    threshold: Threshold = None,
    top: Top = None,
    by: By = None,
    n: Annotated[int, typer.Option("--n", min=1, help="Candidates an image; all are judged.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the captions.")] = 0,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, or int8 in the image tower.")] = "auto",
    licence: Annotated[
        list[str] | None, typer.Option("--require-license", help="Licences to let in; any one that is named: any.")
    ] = None,
    fetch: Annotated[
        list[str] | None, typer.Option("--fetch", metavar="HOST", help="Fetch image URLs of this host; any: all.")
    ] = None,
    max_fail_rate: FailRate = 1.0,
    engine: EngineName = Works.local,
    address: Address = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Do one part of N, as one job of an array; then run without.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Caption, score and decide over any collection of images, with texts or without; run it again to go on.

    Everything stands in the run's folder: every row, its scores, its decision and why. `capfilt report`, `review`,
    `decide`, `export`, `status`, `retry` and `diff` work on that.

    Exit codes: 0 done, 1 rows that do not add up, 2 settings, 3 above --max-fail-rate, 4 nothing to read, 5 disk or
    memory, 6 another run is writing there, 7 not the run that was begun, 130 and 143 interrupted: run it again.
    """
    from capfilt.data.sources import open_source
    from capfilt.recipes import cleaning

    with codes():
        if captioner is None or judge is None:
            open_source(os.path.expanduser(source), captions="optional", urls=True)  # before models are trained for it
        named = named_of(captioner, judge, out)
        config = config_of(source, named, n, seed, precision, licence, fetch, sets)
        _apart(config.source, out)
        part = cleaning.WHOLE_RUN if shard is None else _part(shard)
        counts = cleaning.clean(
            config, out, policy_of(policy, threshold, top, by), engine_of(engine, address), part, max_fail_rate
        )
    show(counts)
    if part == cleaning.WHOLE_RUN:
        print(out / "report" / "index.html")


def retry(run: Run, engine: EngineName = Works.local, address: Address = None) -> None:
    """Try rows again that failed, with the settings of the run; decide anew."""
    from capfilt.recipes import cleaning

    with codes():
        show(cleaning.retry(run, engine_of(engine, address)))


def status(run: Run, as_json: AsJson = False) -> None:
    """How far a run is, and what became of its rows."""
    from capfilt.clean import deciding

    with codes():
        found = deciding.status(run)
    print(json.dumps(found)) if as_json else show(found)


def show(counts: dict[str, Any]) -> None:
    """Counts on one line."""
    print("  ".join(f"{name} {value}" for name, value in counts.items() if not isinstance(value, dict | list)))


@contextlib.contextmanager
def codes() -> Iterator[None]:
    """The exit codes of what cleans: 4 for what cannot be read, 5 also for memory."""
    from capfilt.errors import ConfigError, DataError, NothingToRead, StorageError, WeightsError

    try:
        yield
    except NothingToRead:
        raise
    except DataError as error:
        raise NothingToRead(str(error)) from error
    except WeightsError as error:
        raise ConfigError(str(error)) from error
    except (MemoryError, RuntimeError) as error:  # a torch that is out of memory raises the latter
        if isinstance(error, RuntimeError) and "memory" not in f"{type(error).__name__} {error}".lower():
            raise
        raise StorageError("out of memory; what was done is safe: give it less at once and run it again") from error


def policy_of(name: str | None, threshold: float | None, top: float | None, by: str | None) -> "Policy | None":
    """The policy that flags name; None where none does."""
    from capfilt.clean.policies import Name, Policy
    from capfilt.config import from_dict
    from capfilt.errors import ConfigError

    if name is not None and name not in get_args(Name):
        raise ConfigError(f"--policy {name}: there are {', '.join(get_args(Name))}")
    if top is not None and threshold is not None and name != "replace-low":  # whose synthetic texts meet the threshold
        raise ConfigError("--top and --threshold: only replace-low heeds both; give one")
    given = {"name": name, "threshold": threshold, "top": top, "by": by}
    given = {key: value for key, value in given.items() if value is not None}
    return from_dict(Policy, given) if given else None


def _apart(source: str, out: Path) -> None:
    """Raises ConfigError where a run would be written into the very folder that it reads."""
    from capfilt.errors import ConfigError

    if "://" not in source and os.path.realpath(source) == os.path.realpath(out):
        raise ConfigError(f"-o {out}: is the collection itself; a run is a folder of its own, as in -o runs/{out.name}")


def engine_of(name: Works, address: str | None) -> "Engine":
    """The engine that flags name."""
    from capfilt.clean.engines import engine

    return engine(name.value, address)


def _part(text: str) -> Any:
    from capfilt.errors import ConfigError
    from capfilt.recipes.cleaning import Part

    first, _, of = text.partition("/")
    if not (first.isdecimal() and of.isdecimal()):
        raise ConfigError(f"--shard {text}: write i/n, as in 1/8")
    return Part(int(first), int(of))


def named_of(captioner: str | None, judge: str | None, run: Path | None = None) -> tuple[str, str]:
    """The models that flags name; where they name none, those of the run, else the demo's own, which is told."""
    import sys

    from capfilt.clean import deciding
    from capfilt.recipes import cleaning, own

    if run is not None and None in (captioner, judge) and (run / deciding.RUN).is_file():
        models = cleaning.load_config(run).models
        captioner, judge = captioner or models.captioner, judge or models.filter
    if captioner is None or judge is None:
        print(f"capfilt: {own.about()}; name others with --captioner and --filter", file=sys.stderr)
    return captioner or str(own.captioner()), judge or str(own.filter())


def config_of(
    source: str,
    named: tuple[str, str],
    n: int = 1,
    seed: int = 0,
    precision: str = "auto",
    licence: list[str] | None = None,
    fetch: list[str] | None = None,
    sets: list[str] | None = None,
) -> "CleanConfig":
    """The settings that flags say. named: captioner and filter."""
    from capfilt.clean.config import CleanConfig
    from capfilt.clean.rules import Rules
    from capfilt.clean.stages import Models
    from capfilt.config import with_sets
    from capfilt.data.fetch import Fetching

    def placed(name: str) -> str:
        return os.path.abspath(os.path.expanduser(name)) if "://" not in name and os.path.exists(name) else name

    captioner, judge = map(placed, named)
    hosts = tuple(host for host in fetch or () if host != "any")
    config = CleanConfig(
        source=source if "://" in source or source.startswith("hf:") else os.path.abspath(os.path.expanduser(source)),
        models=Models(captioner, judge, precision=precision, n=n, seed=seed),
        fetching=Fetching(allow_hosts=hosts) if fetch else None,
        rules=Rules(require_licence=tuple(licence or ())),
    )
    return with_sets(config, sets or [])
