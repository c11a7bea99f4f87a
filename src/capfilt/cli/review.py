"""`capfilt review`: a page on which people look through a run's rows and have the last word."""

from pathlib import Path
from typing import Annotated

import typer


def review(
    run: Annotated[Path, typer.Argument(help="A folder that capfilt clean wrote.")],
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8765,
    host: Annotated[str, typer.Option(help="Another address than this machine's own lets others in.")] = "127.0.0.1",
) -> None:
    """Review a run in the browser: accept, reject or edit; capfilt decide heeds what was said. Ctrl-C ends it."""
    import contextlib

    from capfilt.cli.clean import codes
    from capfilt.serve.review.server import reviewing

    with codes(), reviewing(run, host, port) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.url}\nCtrl-C ends it; capfilt decide {run} then heeds what was said", flush=True)
        server.serve_forever()
