"""`stationmaster capabilities`: what agents can be given."""

import typer

from stationmaster.cli.printing import print_json, print_table
from stationmaster.cli.target import KeyFileOption, OutputOption, UrlOption, shared_of


def capabilities(
    context: typer.Context,
    *,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    output: OutputOption = None,
) -> None:
    """List the agents, skills, tool servers and tools that your key may use."""
    shared = shared_of(context)
    with shared.target(url, key_file).client() as client:
        found = client.capabilities()
    if shared.json(output):
        print_json(found)
        return
    rows = [
        ("agent", each.get("id"), each.get("description") or each.get("name"))
        for each in found.get("agents") or ()
    ]
    rows += [
        ("skill", each.get("name"), each.get("description")) for each in found.get("skills") or ()
    ]
    rows += [
        ("tool server", each.get("name"), each.get("url"))
        for each in found.get("mcp_servers") or ()
    ]
    rows += [("tool", name, None) for name in found.get("tools") or ()]
    print_table(("KIND", "NAME", ""), [(kind, name, said or "") for kind, name, said in rows])
