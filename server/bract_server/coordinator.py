"""The coordinator process: Flower's SuperLink app behind our keys. `python -m bract_server.coordinator HUB`."""

import json
import sys
from pathlib import Path

from bract.files import read_private
from bract.flower import superlink_app
from bract_server.fence import serve
from bract_server.home import open_home


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Refuses private files that others can read."""
    home = open_home(Path(argv[0]))
    settings = home.settings()
    read_private(home.server_key)
    operators = {token: name for name, token in json.loads(read_private(home.operators)).items()}
    app = superlink_app(
        operators,
        database=home.flower_db,
        secret=read_private(home.superexec_secret),
        certificates=(home.authority_file, home.server_file, home.server_key),
        host=settings.bind,
        port=settings.fleet_port,
    )
    serve(
        app,
        host=settings.bind,
        port=settings.fleet_port,
        certificate=home.server_file,
        key=home.server_key,
        limits=settings.limits,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
