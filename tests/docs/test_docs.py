import re
import subprocess
import sys
from pathlib import Path

import pytest

from stationmaster.settings import Settings
from stationmaster.settings.field import settings_of
from stationmaster.telemetry import Metrics
from tests.docs.pages import ROOT, anchors, links, pages


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/generate_docs.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", pages(), ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", pages(), ids=named)
def test_pages_have_one_title_and_no_emoji(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    outside_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len(re.findall(r"^# ", outside_code, re.MULTILINE)) == 1
    assert re.findall("[\U0001f000-\U0001faff\u2600-\u27bf]", text) == []


def test_every_page_can_be_found_from_the_readme() -> None:
    found, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in found or page.suffix != ".md":
            continue
        found.add(page)
        local = [link.partition("#")[0] for link in links(page) if ":" not in link]
        waiting.extend((page.parent / link).resolve() for link in local if link)
    assert [named(page) for page in pages() if page not in found] == []


def test_every_decision_is_listed() -> None:
    directory = ROOT / "docs" / "decisions"
    listed = set(links(directory / "README.md"))
    names = sorted(page.name for page in directory.glob("[0-9]*.md"))
    assert [name for name in names if name not in listed] == []
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]


def test_every_setting_is_in_the_reference_with_all_its_names() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    names = [
        name
        for item in settings_of(Settings)
        for name in (*item.names, *item.file_names[:1])
        if f"`{name}`" not in text
    ]
    assert names == []


def test_every_metric_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [item.name for item in Metrics().families() if f"`{item.name}`" not in text] == []


def test_settings_named_in_prose_exist() -> None:
    known = {name for item in settings_of(Settings) for name in (*item.names, *item.file_names)}
    # The client's own settings, and words for names in general.
    client = {"STATIONMASTER_API_KEY", "STATIONMASTER_KEY_FILE", "STATIONMASTER_URL"}
    # What the programs of others take from the environment, whatever we read.
    vaults = {"VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_TOKEN", "VAULT_TOKEN_FILE", "AWS_REGION"}
    others = client | vaults | {"NAME_FILE", "ANTHROPIC_BASE_URL"}
    strange = {
        f"{named(page)}: {word}"
        for page in pages()
        for word in re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", page.read_text("utf-8"))
        if word not in known | others
    }
    assert strange == set()


def test_make_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named_in_pages = {
        word
        for page in pages()
        for word in re.findall(r"(?:`|\$ )make ([a-z]+)", page.read_text(encoding="utf-8"))
    }
    assert {"setup", "demo", "test", "check", "serve", "bench", "lock"} <= targets
    assert named_in_pages - targets == set()


def test_scripts_that_pages_name_exist() -> None:
    strange = {
        f"{named(page)}: {path}"
        for page in pages()
        for path in re.findall(r"scripts/[a-z_.-]*[a-z]", page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert strange == set()
