"""Why a server's certificate is not believed, by OpenSSL's number for it."""

import ssl
from typing import Literal

_EXPIRED = 10  # X509_V_ERR_*
_OTHER_NAMES = frozenset({62, 64})  # another host, another address


def distrust(error: ssl.SSLCertVerificationError) -> Literal["name", "expired", "authority"]:
    """What is wrong with it: it is another's, it is old, or nobody knows who signed it."""
    if error.verify_code in _OTHER_NAMES:
        return "name"
    return "expired" if error.verify_code == _EXPIRED else "authority"
