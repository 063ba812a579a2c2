"""The API's document as a page for people: plain HTML, no script, nothing from elsewhere."""

from collections.abc import Iterator
from html import escape
from typing import Any

STYLE = """\
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0;
  padding: .4rem .8rem; }
summary { cursor: pointer; }
summary span { opacity: .75; margin-left: .6rem; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1rem; }
th, td { border-bottom: 1px solid var(--line); text-align: left; padding: .25rem .5rem;
  vertical-align: top; }
code { background: var(--soft); border-radius: .2rem; padding: 0 .25rem; }
"""


def page(document: dict[str, Any], *, unfolded: bool) -> str:
    """The whole page; `unfolded` shows every endpoint with everything at once."""
    return "".join(_page(document, unfolded))


def _page(document: dict[str, Any], unfolded: bool) -> Iterator[str]:
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><link rel="stylesheet" href="/docs/style.css"></head><body>'
        f"<h1>{title}</h1>{_prose(info.get('description', ''))}"
        '<p><a href="/openapi.json">openapi.json</a> · <a href="/docs">folded</a> · '
        '<a href="/redoc">unfolded</a></p>'
    )
    for tag in document["tags"]:
        yield f"<h2>{escape(tag['name'].capitalize())}</h2>{_prose(tag.get('description', ''))}"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation.get("tags", ()):
                    yield from _operation(path, method, operation, unfolded)
    yield "<h2>Schemas</h2>"
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _schema(name, schema, unfolded)
    yield "</body></html>"


def _operation(path: str, method: str, operation: dict[str, Any], unfolded: bool) -> Iterator[str]:
    yield (
        f'<details{" open" if unfolded else ""} id="{escape(operation["operationId"])}"><summary>'
        f'<span class="method">{method.upper()}</span><code>{escape(path)}</code>'
        f"<span>{escape(operation.get('summary', ''))}</span></summary>"
        f"{_prose(operation.get('description', ''))}"
    )
    given = [
        (item["name"], item["in"], _type(item["schema"]), item.get("required"), _says(item))
        for item in operation.get("parameters", ())
    ]
    yield _table(("Parameter", "In", "Type", "", ""), given)
    for media_type, media in operation.get("requestBody", {}).get("content", {}).items():
        schema = media["schema"]
        yield f"<p>Body, <code>{escape(media_type)}</code>: {_type(schema)}</p>"
        yield _fields(schema)
    answers = [
        (status, escape(answer.get("description", "")), _contents(answer))
        for status, answer in operation["responses"].items()
    ]
    yield _table(("Answer", "", "Body"), answers)
    yield "</details>"


def _schema(name: str, schema: dict[str, Any], unfolded: bool) -> Iterator[str]:
    yield (
        f'<details{" open" if unfolded else ""} id="schema-{escape(name)}"><summary>'
        f"<code>{escape(name)}</code></summary>"
        f"{_prose(schema.get('description', ''))}{_fields(schema)}</details>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (name, _type(field), name in required, _says(field))
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(("Field", "Type", "", ""), rows)


def _table(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    """A cell. Text that is not markup of ours was escaped where it was made."""
    if value is True:
        return "required"
    return "" if value in {None, False} else str(value)


def _contents(answer: dict[str, Any]) -> str:
    return "<br>".join(
        f"<code>{escape(media_type)}</code> {_type(media.get('schema', {}))}"
        for media_type, media in answer.get("content", {}).items()
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if "enum" in schema:
        return " | ".join(f"<code>{escape(str(value))}</code>" for value in schema["enum"])
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " | ".join(_type(item) for item in schema[choice])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any")))


def _says(item: dict[str, Any]) -> str:
    return _inline(str(item.get("description", "")))


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    """Text with `code` between backticks."""
    parts = escape(" ".join(text.split())).split("`")
    return "".join(
        f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts)
    )
