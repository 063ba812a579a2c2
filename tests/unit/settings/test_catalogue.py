from pathlib import Path

import pytest

from stationmaster.settings import SettingsError
from stationmaster.settings.catalogue import CatalogueFile, ModelEntry, TargetEntry, read_catalogue


def read(tmp_path: Path, text: str, **environ: str) -> CatalogueFile:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return read_catalogue(file, environ)


def test_no_file_and_no_part_name_nothing(tmp_path: Path) -> None:
    assert read_catalogue(tmp_path / "config.yaml", {}) == CatalogueFile()
    assert read(tmp_path, "port: 1\n") == CatalogueFile()
    assert read(tmp_path, "models:\n") == CatalogueFile()


def test_models_are_read_with_their_targets(tmp_path: Path) -> None:
    made = read(
        tmp_path,
        """
providers:
  a: {type: openai, base_url: "http://a/v1", max_concurrent: 3}
models:
  m:
    strategy: weighted
    targets: [{provider: a, model: theirs, weight: 2, tags: [eu]}]
    fallbacks: [other]
    price: {input: 0.1, output: 1}
    max_output: 100
  described: {context_window: 1000}
aliases: {short: m}
""",
    )
    assert made.providers["a"].kind == "openai"
    assert made.providers["a"].options == {"base_url": "http://a/v1"}
    assert made.providers["a"].max_concurrent == 3
    entry = made.models["m"]
    assert entry.targets == (TargetEntry("a", "theirs", 2, frozenset({"eu"})),)
    assert entry.price is not None
    assert {name: str(value) for name, value in entry.price.items()} == {
        "input": "0.1",
        "output": "1",
    }
    assert made.models["described"] == ModelEntry(context_window=1000)
    assert made.aliases == {"short": "m"}


def test_a_secret_comes_from_where_the_file_says_and_is_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("canary-of-the-file\n")
    made = read(
        tmp_path,
        """
providers:
  a: {type: openai, api_key: "env:THE_KEY"}
  b: {type: openai, api_key_file: key, ca_file: ca.pem}
""",
        THE_KEY="canary-of-the-environment",
    )
    assert made.providers["a"].options == {"api_key": "canary-of-the-environment"}
    assert made.providers["b"].options == {"api_key": "canary-of-the-file", "ca_file": "ca.pem"}
    assert set(made.secrets) == {"canary-of-the-environment", "canary-of-the-file"}
    assert "canary" not in repr(made)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models: [a]", "line 1"),
        ("models:\n  m: {targets: 3}", "the model 'm'"),
        ("models:\n  m: {target: []}", "target"),
        ("models:\n  m: {strategy: luck}", "luck"),
        ("models:\n  m: {targets: [{provider: gone}]}", "no provider 'gone'"),
        ("models:\n  m: {price: {input: dear}}", "price"),
        ("models:\n  m: {}\n  m: {}", "twice"),
        ("providers:\n  a: {base_url: x}", "type"),
        ("providers:\n  a: 3", "the provider 'a'"),
        ("providers:\n  a: {type: x, api_key: 'env:NOT_THERE'}", "NOT_THERE"),
        ("providers:\n  a: {type: x, api_key_file: not-there}", "not-there"),
        ("providers:\n  a: {type: x, default: true}\n  b: {type: x, default: true}", "only one"),
        ("aliases: {a: [b]}", "the alias 'a'"),
        ("models: {", "not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert says in caught.value.message
    assert "line" in caught.value.message or "not-there" in caught.value.message
