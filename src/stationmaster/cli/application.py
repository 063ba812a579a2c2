"""The tree of commands, and the one place where errors become a sentence and an exit code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from stationmaster.cli import (
    admin,
    agents,
    approvals,
    audit,
    batches,
    budgets,
    cache,
    calls,
    capabilities,
    chat,
    check,
    copy_database,
    demo,
    doctor,
    jobs,
    keys,
    ledger,
    migrate,
    providers,
    secrets,
    serve,
    sessions,
    tasks,
    usage,
    version,
)
from stationmaster.cli import run as run_command
from stationmaster.cli.exits import Exit, report
from stationmaster.cli.printing import Output, safe, warn
from stationmaster.cli.target import DEFAULT_URL, KEY_VARIABLE, Shared, shared_of

HELP = "Run Claude Code and language models as one production service."
EPILOG = "Begin with: stationmaster demo"


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    shared = Shared()
    try:
        build()(args=list(arguments), prog_name="stationmaster", obj=shared)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException as error:
        if shared.debug and not isinstance(error, KeyboardInterrupt):
            raise
        found = report(error)
        warn(f"error: {safe(found.message)}")
        return int(found.code)
    return int(Exit.DONE)


def build() -> typer.Typer:
    """The application with every command."""
    # Help in plain text: Rich would double the time of `--help`.
    app = typer.Typer(
        help=HELP,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_shared)
    app.command("serve")(serve.serve)
    app.command("worker")(serve.worker)
    app.command("scheduler")(serve.scheduler)
    app.command("demo")(demo.demo)
    app.command("run")(run_command.run)
    app.command("chat")(chat.chat)
    app.command("process")(providers.process)
    app.command("route")(providers.route)
    app.command("capabilities")(capabilities.capabilities)
    app.add_typer(_providers(), name="providers")
    app.add_typer(_tasks(), name="tasks")
    app.add_typer(_sessions(), name="sessions")
    app.add_typer(_agents(), name="agents")
    app.add_typer(_approvals(), name="approvals")
    app.add_typer(_batches(), name="batches")
    app.add_typer(_keys(), name="keys")
    app.add_typer(_admin(), name="admin")
    app.add_typer(_audit(), name="audit")
    app.add_typer(_secrets(), name="secrets")
    app.command("usage")(usage.usage)
    app.add_typer(_budgets(), name="budgets")
    app.add_typer(_cache(), name="cache")
    app.add_typer(_calls(), name="calls")
    app.add_typer(_ledger(), name="ledger")
    app.add_typer(_jobs(), name="jobs")
    app.command("migrate")(migrate.migrate)
    app.command("copy-database")(copy_database.copy_database)
    app.command("check")(check.check)
    app.command("doctor")(doctor.doctor)
    app.command("version")(version.version)
    return app


def _providers() -> typer.Typer:
    group = _group("Look at the providers of models, and at what is known of their models.")
    group.command("list")(providers.list_providers)
    group.command("models")(providers.models)
    return group


def _tasks() -> typer.Typer:
    group = _group("Look at tasks, follow them, cancel them, take their files.")
    group.command("list")(tasks.list_tasks)
    group.command("show")(tasks.show)
    group.command("follow")(tasks.follow)
    group.command("cancel")(tasks.cancel)
    group.command("artifacts")(tasks.artifacts)
    group.command("log")(tasks.log)
    group.command("diff")(tasks.diff)
    return group


def _sessions() -> typer.Typer:
    group = _group("Look at sessions, talk to them, follow, interrupt, fork and archive them.")
    group.command("list")(sessions.list_sessions)
    group.command("show")(sessions.show)
    group.command("talk")(sessions.talk)
    group.command("follow")(sessions.follow)
    group.command("events")(sessions.events)
    group.command("interrupt")(sessions.interrupt)
    group.command("fork")(sessions.fork)
    group.command("archive")(sessions.archive)
    return group


def _agents() -> typer.Typer:
    group = _group("Define agents for sessions, look at them, archive them.")
    group.command("create")(agents.create)
    group.command("list")(agents.list_agents)
    group.command("show")(agents.show)
    group.command("archive")(agents.archive)
    return group


def _approvals() -> typer.Typer:
    group = _group("Allow or deny calls of tools that wait for somebody.")
    group.command("list")(approvals.list_approvals)
    group.command("show")(approvals.show)
    group.command("approve")(approvals.approve)
    group.command("deny")(approvals.deny)
    return group


def _batches() -> typer.Typer:
    group = _group("Make batches of model calls, see how far they are, take their results.")
    group.command("create")(batches.create)
    group.command("list")(batches.list_batches)
    group.command("show")(batches.show)
    group.command("cancel")(batches.cancel)
    group.command("results")(batches.results)
    group.command("delete")(batches.delete)
    return group


def _admin() -> typer.Typer:
    group = _group("Make an admin key with nothing but the machine.")
    group.callback()(lambda: None)  # one command is still a group
    group.command("create")(admin.create)
    return group


def _audit() -> typer.Typer:
    group = _group("Check and export the audit log.")
    group.command("verify")(audit.verify)
    group.command("export")(audit.export)
    return group


def _secrets() -> typer.Typer:
    group = _group("Look after secrets that are stored encrypted.")
    group.callback()(lambda: None)  # one command is still a group
    group.command("reseal")(secrets.reseal)
    return group


def _keys() -> typer.Typer:
    group = _group("Make, list, replace and revoke API keys.")
    group.command("create")(keys.create)
    group.command("list")(keys.list_keys)
    group.command("rotate")(keys.rotate)
    group.command("collect")(keys.collect)
    group.command("revoke")(keys.revoke)
    return group


def _budgets() -> typer.Typer:
    group = _group("Set budgets, look at them, change and delete them.")
    group.command("create")(budgets.create)
    group.command("list")(budgets.list_budgets)
    group.command("show")(budgets.show)
    group.command("update")(budgets.update)
    group.command("delete")(budgets.delete)
    group.command("alerts")(budgets.alerts)
    return group


def _cache() -> typer.Typer:
    group = _group("Look at the response cache, and clear it.")
    group.command("stats")(cache.stats)
    group.command("clear")(cache.clear)
    return group


def _calls() -> typer.Typer:
    group = _group("Read what was said in calls, where a project keeps it, and choose whether.")
    group.command("list")(calls.list_calls)
    group.command("show")(calls.show)
    group.command("delete")(calls.delete)
    group.command("policy")(calls.policy)
    return group


def _ledger() -> typer.Typer:
    group = _group("Check the books of this server's database, and sum them anew.")
    group.command("verify")(ledger.verify)
    group.command("rebuild")(ledger.rebuild)
    return group


def _jobs() -> typer.Typer:
    group = _group("Look at the jobs behind requests; replay or discard parked ones.")
    group.command("list")(jobs.list_jobs)
    group.command("show")(jobs.show)
    group.command("replay")(jobs.replay)
    group.command("discard")(jobs.discard)
    return group


def _group(text: str) -> typer.Typer:
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        version.print_version()
        raise typer.Exit


def _shared(
    context: typer.Context,
    *,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="How to print what was found.")
    ] = Output.table,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help=f"The server; also STATIONMASTER_URL. Default: {DEFAULT_URL}.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            metavar="PATH",
            help=f"A file with the API key; also STATIONMASTER_KEY_FILE, or the key itself in"
            f" {KEY_VARIABLE}.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback on errors.")] = False,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    del show_version  # its callback has done all
    shared = shared_of(context)
    shared.output, shared.url, shared.key_file, shared.debug = output, url, key_file, debug
