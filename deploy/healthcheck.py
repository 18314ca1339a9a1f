"""Exit 0 if the service in this container is ready, 1 if not: the image's HEALTHCHECK."""

import os
import sys
import urllib.error
import urllib.request

_TIMEOUT_S = 4.0


def is_ready(port: int) -> bool:
    """Ask the service on this machine whether it takes requests."""
    # Without proxies: a container's http_proxy must not be asked for its own loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health/ready", timeout=_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(os.environ.get("SDCOM_HTTP_PORT") or 8000)) else 1)
