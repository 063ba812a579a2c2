from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stationmaster.settings import load_secret_key


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load_secret_key(tmp_path).get_secret_value()
    assert len(first) >= 32
    assert load_secret_key(tmp_path).get_secret_value() == first


def test_only_the_server_may_read_it(tmp_path: Path) -> None:
    load_secret_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600


def test_servers_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = {key.get_secret_value() for key in pool.map(load_secret_key, [tmp_path] * 64)}
    assert len(keys) == 1
