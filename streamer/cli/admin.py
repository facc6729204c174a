"""Commands for whoever operates it: topics, dlq, reset."""

from typing import Annotated

import typer

from streamer.cli.options import AsJson, ConfigFile, Overrides, load
from streamer.errors import Refused
from streamer.terminal import say

topics = typer.Typer(
    help="Create the topics, or check that they lose nothing.", no_args_is_help=True
)

dlq = typer.Typer(
    help="Look through the dead letters, or send them back to be taken once more.",
    no_args_is_help=True,
)

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="CLASS", help="Of this error class. Repeatable."),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="At or after: 2026-01-31T12:00:00Z, or a span back from now as 2h."
    ),
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Before this time.")]
Partition = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="From this partition of the topic it came from."),
]
Match = Annotated[
    str | None, typer.Option(metavar="TEXT", help="With this text in key, value or message.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
]


@topics.command("create")
def create_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Create the topics that do not exist yet, and print their names.

    **Examples**

    $ walkstream topics create --set topics.partitions=16 --set topics.replication=3
    """
    from streamer.kafka import rights
    from streamer.kafka import topics as module

    settings = load(config, overrides)
    # Not asked before: what is there already needs no right to be made.
    with rights.allowed(settings, "topics create", ask=False) as admin:
        made = module.create(admin, module.specs(settings))
    say(f"made {', '.join(made)}" if made else "all topics are there already")


@topics.command("check")
def check_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what the topics have that would lose clicks or vectors; exit with 3 if anything.

    Their settings, and whether they are those that the model in model-state was made with.

    **Examples**

    $ walkstream topics check --config production.toml
    """
    from streamer.kafka import rights
    from streamer.kafka import topics as module

    settings = load(config, overrides)
    specs = module.specs(settings)
    with rights.allowed(settings, "topics check") as admin:
        mismatches = module.check(admin, specs, with_advice=True)
        if len(module.describe(admin, [spec.name for spec in specs])) == len(specs):
            from streamer.worker import header

            notes, lost = header.against_model(settings, admin)
            if "vector-deltas" in admin.list_topics(timeout=30).topics:
                notes.append("vector-deltas is of no use any more: evidence is in "
                             f"{settings.topics.transitions}")  # fmt: skip
            mismatches += lost
            for note in notes:
                say(f"note: {note}")
    for mismatch in mismatches:
        say(mismatch)
    if not mismatches:
        print(f"{len(specs)} topics, all fit")
    else:
        raise typer.Exit(Refused.exit_code)


@dlq.command("list")
def list_letters(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    match: Match = None,
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="The newest N, the newest last.")
    ] = 20,
    summary: Annotated[
        bool, typer.Option("--summary", help="Only how many there are by reason and source.")
    ] = False,
    as_json: AsJson = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Print dead letters: when, why, which record it was, and what it held.

    Filters are all to be met. Times are those at which a worker put the letter aside.

    **Examples**

    $ walkstream dlq list --summary

    $ walkstream dlq list --reason bad_time --since 2h --json
    """
    from streamer.admin import dlq as module
    from streamer.admin.letters import Filter

    wanted = Filter.of(reason or [], since, until, partition, match)
    module.show(load(config, overrides), wanted, limit, summary, as_json)


@dlq.command("replay")
def replay_letters(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    match: Match = None,
    bad_too: Annotated[
        bool, typer.Option("--all", help="Those that are still bad too; they come back.")
    ] = False,
    dry_run: DryRun = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Send dead letters that are good by now back to where they came from: all or none.

    Good by the settings in force, such as clicks of a type that has got a weight. The dead letters
    stay: sent twice, a click counts twice. Workers get no new clicks while it sends.

    **Examples**

    $ walkstream dlq replay --reason unknown_type --match wishlist --dry-run

    $ walkstream dlq replay --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z
    """
    from streamer.admin import dlq as module
    from streamer.admin.letters import Filter

    wanted = Filter.of(reason or [], since, until, partition, match)
    module.resend(load(config, overrides), wanted, bad_too, dry_run)


def reset(
    topics: Annotated[
        bool,
        typer.Option(
            "--topics",
            help="The model in Kafka too, so that the next start learns from the clicks again.",
        ),
    ] = False,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Delete the state folder, which the next start rebuilds; with --topics, the model.

    Clicks and items always stay. It is refused (exit code 3) while a worker runs.

    **Examples**

    $ walkstream reset --set state.dir=/data/music

    $ walkstream reset --topics --dry-run
    """
    from streamer.admin import reset as module

    module.run(load(config, overrides), topics, dry_run, yes)


def hand_over(
    old: Annotated[
        str, typer.Option("--from", metavar="NAME", help="The app.name that the model has now.")
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Give the model in model-state to app.name, which goes on where the old app stopped.

    Stop the workers of both first. Topics and state folder stay; the consumer group is another one.

    **Examples**

    $ walkstream hand-over --from walkstream --set app.name=music
    """
    from streamer.admin import hand_over as module

    module.run(load(config, overrides), old)


def forget(
    users: Annotated[list[str], typer.Argument(metavar="USER", help="User ids.")],
    undo: Annotated[
        bool, typer.Option("--undo", help="Their clicks count again, from now on.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Leave the clicks of users out, from now on and when old clicks are folded anew.

    It says what is left of them, and for how long.

    **Examples**

    $ walkstream forget user-4711 user-4712
    """
    from streamer.admin import forget as module

    module.run(load(config, overrides), users, undo)


def major(
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it is over, and the clusters are new.")
    ] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Ask the running workers for a major update now, outside of major.window too.

    It walks from all items, moves the clusters, and publishes every item, with the commits after
    it. Asked for twice before it is over, it happens once; where no worker runs, the next start
    begins it, and with --wait the command says so and ends with exit 1.

    **Examples**

    $ walkstream major --wait
    """
    from streamer.admin import major as module

    module.run(load(config, overrides), wait)
