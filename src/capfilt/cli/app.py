"""The command line: one verb, one file. Every user mistake is one line on stderr and a documented exit code."""

import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, NoReturn

import typer

from capfilt import __version__
from capfilt.cli import (
    bench,
    bootstrap,
    caption,
    check,
    clean,
    convert,
    decide,
    diff,
    doctor,
    evaluate,
    explain,
    export,
    golden,
    models,
    plan,
    report,
    review,
    study,
    train,
    verify,
)
from capfilt.errors import CapfiltError, ConfigError, StorageError
from capfilt.runtime import Terminated, peak_mib, sigterm_raises

VERBS: dict[str, Callable[..., None]] = {
    "caption": caption.caption,
    "clean": clean.clean,
    "plan": plan.plan,
    "decide": decide.decide,
    "review": review.review,
    "status": clean.status,
    "retry": clean.retry,
    "diff": diff.diff,
    "check": check.check,
    "dedup": check.dedup,
    "bootstrap": bootstrap.bootstrap,
    "train": train.train,
    "eval": evaluate.evaluate,
    "explain": explain.explain,
    "export": export.export,
    "report": report.report,
    "golden": golden.golden,
    "models": models.models,
    "convert": convert.convert,
    "verify": verify.verify,
    "doctor": doctor.doctor,
    "bench": bench.bench,
    "study": study.study,
}
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143
RESUMES = ("bootstrap", "caption", "clean", "export", "retry", "train", "study")  # they go on where they were stopped
GO_ON = "run the same command again to go on"
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)

app = typer.Typer(
    name="capfilt",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for _name, _verb in VERBS.items():
    app.command(_name)(_verb)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"capfilt {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Captions that fit their images: bootstrap a vision-language model from noisy image-text pairs.

    Exit codes: 0 done, 1 a check failed, 2 settings, 3 data, 4 weights, 5 disk, 6 folder in use,
    130 interrupted, 141 nobody reads on, 143 terminated. CAPFILT_DEBUG=1 shows tracebacks.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def main() -> NoReturn:
    """Runs the command line and leaves with its exit code.

    A mistake that `capfilt.errors` knows is told on one line; a bug keeps its traceback, for whoever has to mend it.
    Where nobody reads what is written any more (`| head`), it leaves without a word, as the shell's own programs do.
    """
    try:
        _run()
    except (BrokenPipeError, SystemExit) as left:
        broken = left if isinstance(left, BrokenPipeError) else left.__context__  # typer and rich turn it into exit 1
        if not isinstance(broken, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):
            os.dup2(nowhere, fd)
        sys.exit(UNREAD)


def _run() -> NoReturn:
    debug = os.environ.get("CAPFILT_DEBUG", "") not in ("", "0")
    warnings.showwarning = _note
    try:
        with sigterm_raises():
            code = app(prog_name="capfilt", standalone_mode=False)  # verbs return nothing, so only typer sets a code
        sys.stdout.flush()  # not when Python ends, which could only complain
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Terminated:
        _leave("terminated" + _go_on(), TERMINATED)
    except Exception as error:
        told = _told(error)
        if debug or told is None:
            raise
        _leave(*told)
    if code == INTERRUPTED:  # typer turns Ctrl-C into its exit code
        _leave("interrupted" + _go_on(), INTERRUPTED)
    sys.exit(code)


def _go_on() -> str:
    return f"; {GO_ON}" if set(sys.argv[1:2]) & set(RESUMES) else ""


def _told(error: Exception) -> tuple[str, int] | None:
    """The one line and exit code for an error that a user can mend; None for a bug."""
    if isinstance(error, CapfiltError):
        return str(error), error.exit_code
    if isinstance(error, typer.TyperException):  # a flag or verb that typer does not know
        return f"{error.format_message()} (--help shows what there is)", ConfigError.exit_code
    if isinstance(error, OSError) and error.errno in DISK:
        where = error.filename or "disk"
        return f"{where}: {error.strerror}; make room or choose another --out", StorageError.exit_code
    if _out_of_memory(error):
        return f"out of memory at {peak_mib()} MiB; give it a smaller batch or image with --set{_go_on()}", 1
    return None


def _out_of_memory(error: Exception) -> bool:
    """Python's own, the accelerator's, or the CPU allocator's, which is a plain RuntimeError."""
    torch = sys.modules.get("torch")  # an error of torch comes from a torch that is loaded
    if isinstance(error, MemoryError) or (torch is not None and isinstance(error, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _note(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line, like an error."""
    print("capfilt: note: " + " ".join(str(message).split()), file=sys.stderr)


def _leave(line: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print("capfilt: " + " ".join(line.split()), file=sys.stderr)
    sys.exit(code)
