"""Whether wandb can be reached: a key, and a server that answers."""

import http.client
import urllib.error
import urllib.request

NETWORK_TIMEOUT = 5.0  # seconds


def has_key() -> bool:
    """Whether wandb knows a key; it asks nobody."""
    import wandb

    return bool(wandb.login(prompt=False, verify=False))


def server() -> str:
    """Address of the server that wandb is set up for."""
    import wandb

    return str(wandb.setup().settings.base_url)


def answers(url: str) -> bool:
    """Whether a server answers there, in whatever way."""
    try:
        urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT).close()
    except (OSError, http.client.HTTPException) as error:
        return isinstance(error, urllib.error.HTTPError)
    return True
