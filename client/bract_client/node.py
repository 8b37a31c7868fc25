"""The node process: Flower's SuperNode with our keys. `python -m bract_client.node SITE`.

It runs nothing itself (`--isolation process`): whoever takes its tasks must show the secret. A session that a killed node
left open is ended first, so that a site that was killed is back in seconds and not in a minute.
"""

import logging
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from bract.errors import BractError
from bract.files import read_private, write_private
from bract.logs import start_logging
from bract_client.home import SiteHome, open_home

log = logging.getLogger("bract.node")


def remember(home: SiteHome, node_id: int) -> None:
    """Keep Flower's number for this site's node, which only its messages tell."""
    path = _number(home)
    if not path.exists() or path.read_text(encoding="ascii") != str(node_id):
        write_private(path, str(node_id).encode())


def release(home: SiteHome) -> None:
    """End the session of a former life, if there was one; what goes wrong here only costs time."""
    if not _number(home).exists():
        return
    from bract.flower import release_node  # noqa: PLC0415 - seconds to load, of no use to a new site

    key = load_ssh_private_key(read_private(home.node_key_file), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return
    node_id = int(_number(home).read_text(encoding="ascii"))
    try:
        release_node(home.bundle().fleet, home.authority_file.read_bytes(), key, node_id)
    except BractError as error:
        log.info("the former session was not ended: %s", error)


def arguments(home: SiteHome) -> list[str]:
    """The arguments of `flower-supernode` for this site."""
    options = {
        "--superlink": home.bundle().fleet,
        "--root-certificates": str(home.authority_file),
        "--auth-supernode-private-key": str(home.node_key_file),
        "--host": "127.0.0.1",
        "--port": str(home.settings().runtime_port),
        "--isolation": "process",
        "--superexec-auth-secret-file": str(home.superexec_secret),
    }
    return [word for option in options.items() for word in option]


def _number(home: SiteHome) -> Path:
    return home.root / "node.id"


def main(argv: list[str]) -> None:
    """Become the node."""
    start_logging()
    home = open_home(Path(argv[0]))
    release(home)
    from bract.flower import become_supernode  # noqa: PLC0415 - as above

    become_supernode(arguments(home))


if __name__ == "__main__":
    main(sys.argv[1:])
