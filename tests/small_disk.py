"""A real disk that is nearly full: a small tmpfs in a mount namespace of its own, gone with the process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def on_small_disk(folder: Path, kib: int, script: str) -> str:
    """What the script prints; its argument is a folder on a disk of `kib` KiB. Skips where namespaces are forbidden."""
    folder.mkdir()
    mounted = f'mount -t tmpfs -o size={kib}k tmpfs "$0" || exit 77; exec "$1" -c "$2" "$0"'
    try:
        ended = subprocess.run(
            ["unshare", "-rm", "sh", "-c", mounted, folder, sys.executable, script],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if ended.returncode == 77 or "unshare:" in ended.stderr:
        pytest.skip("mounts are forbidden here")
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
