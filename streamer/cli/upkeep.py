"""Commands for whoever operates it: topics."""

from typing import TYPE_CHECKING

import typer

from streamer.cli.options import ConfigFile, Overrides, load

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from streamer.settings import Config
    from streamer.topics import TopicSpec

from streamer.errors import Refused

topics = typer.Typer(
    help="Create the topics, or check that they lose nothing.", no_args_is_help=True
)


@topics.command("create")
def create_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Create the topics that do not exist yet, and print their names.

    **Examples**

    $ walkstream topics create --set topics.partitions=16 --set topics.replication=3
    """
    from streamer import topics as module

    admin, specs = _admin_and_specs(load(config, overrides))
    made = module.create(admin, specs)
    print(f"made {', '.join(made)}" if made else "all topics are there already")


@topics.command("check")
def check_topics(config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Print what the topics have that would lose clicks or vectors; exit with 3 if anything.

    **Examples**

    $ walkstream topics check --config production.toml
    """
    from streamer import topics as module

    admin, specs = _admin_and_specs(load(config, overrides))
    mismatches = module.check(admin, specs)
    for mismatch in mismatches:
        print(mismatch)
    if not mismatches:
        print(f"{len(specs)} topics, all fit")
    else:
        raise typer.Exit(Refused.exit_code)


def _admin_and_specs(config: "Config") -> "tuple[AdminClient, list[TopicSpec]]":
    from streamer import kafka
    from streamer import topics as module

    return kafka.admin(config), module.specs(config.topics, config.graph.horizon_ms)
