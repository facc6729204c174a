"""The command line. Commands only parse; what does the work is imported when they run."""

import atexit
import gc
import io
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from streamer import ending
from streamer.cli import admin, asking, measuring, options, running, setup
from streamer.terminal import guarded


class Command(TyperCommand):
    """A command whose output commands no terminal; usage errors are rich's and in colour."""

    def make_context(self, *given: Any, **extra: Any) -> Any:
        try:
            return super().make_context(*given, **extra)
        except typer.BadParameter as error:
            # typer of today asks pydantic, which begins with its own name for the kind of error.
            error.message = error.message.removeprefix("Value error, ")
            raise

    def invoke(self, ctx: Any) -> Any:
        with guarded():
            return super().invoke(ctx)


EXIT_CODES = """**Exit codes**

- 0: done or stopped
- 1: failed; start it again
- 2: a wrong setting or argument
- 3: refused, as clicks would be lost or counted twice
- 4: another process took this worker's place
- 5: damaged state was moved aside; start it again
- 130, 143: interrupted, by Ctrl-C or a second SIGTERM
"""

app = typer.Typer(
    help="Item embeddings that follow a stream of clicks, from Kafka to Kafka.",
    epilog="Will a file of clicks work? `walkstream publish FILE --dry-run` says so, without "
    f"Kafka; of a topic that has clicks `check-topic` does.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    running.demo,
    setup.init,
    setup.config,
    running.worker,
    running.publish,
    running.replay,
    asking.query,
    asking.plot,
    asking.inspect,
    asking.cluster,
    asking.export,
    measuring.bench,
    measuring.evaluate,
    measuring.tune,
    admin.reset,
    admin.forget,
    admin.major,
):
    app.command(epilog=EXIT_CODES if command is running.worker else None)(command)
app.command("hand-over")(admin.hand_over)
app.command("check-topic")(asking.check_topic)
app.add_typer(admin.topics, name="topics")
app.add_typer(admin.dlq, name="dlq")
for group in (app, admin.topics, admin.dlq):
    for registered in group.registered_commands:
        registered.cls = Command


def main() -> None:
    """Entry point. Exits with the code of the error, 130 when interrupted."""
    ending.watch()
    # At its end Python looks for cycles among all that numba and others made: half a second of CPU.
    atexit.register(gc.freeze)
    # Small products gain nothing from more BLAS threads, and sums must not depend on their number.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            # What the terminal's encoding has not is spelled out: no name ends a process.
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    try:
        options.refuse_stray(sys.argv[1:])
        app(prog_name="walkstream")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from streamer.watch import log

        sys.exit(log.end(error))


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"walkstream {version('walkstream')}")
        except PackageNotFoundError:
            print("walkstream, not installed as a package")
        raise typer.Exit


@app.callback()
def _common(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
