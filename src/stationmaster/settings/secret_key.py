"""The server's own secret, made at the first start where the operator gives none."""

import os
import secrets
from pathlib import Path

from pydantic import SecretStr

FILE_NAME = "secret.key"
_RANDOM_BYTES = 32


def load_secret_key(data_dir: Path) -> SecretStr:
    """Read the secret kept in `data_dir`, which exists, or make it there, readable by us alone.

    Two servers that start at once get the same one. Raises OSError where it cannot be written.
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        # Written aside and linked into place: a reader never sees half of it, and the loser of a
        # race keeps the winner's.
        draft = data_dir / f".{FILE_NAME}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(_RANDOM_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return SecretStr(path.read_text(encoding="ascii").strip())
