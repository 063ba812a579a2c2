"""What the operator decides: read once at the start, checked as a whole, never changed after.

Nothing else in Stationmaster reads the environment, `.env` or `config.yaml`.
"""

from stationmaster.settings.errors import Problem, SettingsError
from stationmaster.settings.secret_key import load_secret_key
from stationmaster.settings.settings import Settings

__all__ = ["Problem", "Settings", "SettingsError", "load_secret_key"]
