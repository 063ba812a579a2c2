"""`stationmaster providers`, `process` and `route`: who answers, an answer, who would be chosen."""

import sys
from typing import Annotated, Any

import typer

from stationmaster.cli.printing import dollars, print_json, print_table, say, warn
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of

Prompt = Annotated[
    str, typer.Argument(metavar="PROMPT", help="What to ask; - reads it from stdin.")
]


def list_providers(
    context: typer.Context,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the server's providers, and those of their models that your key may use."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.providers()
    if shared.json(output):
        print_json(found)
        return
    rows = [
        (each.get("name"), _yes(each.get("available")), ", ".join(each.get("models") or ()))
        for each in found
    ]
    print_table(("PROVIDER", "AVAILABLE", "MODELS"), rows)


def models(
    context: typer.Context,
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="Its name.")],
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Show what is known of a provider's models: in tokens, how much they read and write."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.provider_models(provider)
    if shared.json(output):
        print_json(found)
        return
    rows = [
        (
            name,
            _tokens(known.get("context_window")),
            _tokens(known.get("max_tokens")),
            _yes(known.get("supports_functions")),
            _yes(known.get("supports_vision")),
        )
        for name, known in (found.get("models") or {}).items()
    ]
    print_table(("MODEL", "CONTEXT", "OUTPUT", "TOOLS", "IMAGES"), rows)


def process(
    context: typer.Context,
    provider: Annotated[
        str, typer.Argument(metavar="PROVIDER", help="Who is to answer, if the server has it.")
    ],
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="One that nobody serves gets a Claude like it.")
    ],
    prompt: Prompt,
    *,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="The system prompt.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, metavar="N", help="Default: 1000.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, max=2, help="Default: 0.7.")
    ] = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Ask a model of any provider once, and print its answer."""
    given: dict[str, Any] = {
        "system_message": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
    }
    said = {name: value for name, value in given.items() if value is not None}
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.process(provider, model, user_message=_read(prompt), **said)
    if shared.json(output):
        print_json(found)
        return
    say(found.get("content") or "")
    told = found.get("metadata") or {}
    tokens = (told.get("usage") or {}).get("total_tokens", 0)
    answered = f"{told.get('actual_provider')}:{told.get('actual_model')}"
    warn(f"{answered}, {tokens:,} tokens, {dollars(told.get('cost_usd') or 0.0)}")
    if told.get("mapped_from"):
        warn(f"In place of what was asked for: {told['mapped_from']}")


def route(
    context: typer.Context,
    prompt: Prompt,
    *,
    context_size: Annotated[
        int,
        typer.Option("--context-size", min=0, metavar="TOKENS", help="What comes with the prompt."),
    ] = 0,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """Tell which model a chat with this prompt would get if it named none. Costs nothing."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.route(_read(prompt), context_size=context_size)
    if shared.json(output):
        print_json(found)
        return
    say(f"{found.get('recommended_model')}: {found.get('reasoning')}")


def _read(prompt: str) -> str:
    return sys.stdin.read() if prompt == "-" else prompt


def _yes(told: bool | None) -> str:
    return "unknown" if told is None else "yes" if told else "no"


def _tokens(told: int | None) -> str:
    return "unknown" if told is None else f"{told:,}"
