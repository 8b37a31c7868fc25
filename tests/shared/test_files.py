"""Whole or not there; private or refused."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bract.errors import DISK, KEY_PERMISSIONS, BractError
from bract.files import read_private, write_atomic, write_private
from tests.small_disk import on_small_disk


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private(path) == b"secret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_private_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private(path, b"secret")
    path.chmod(mode)
    with pytest.raises(BractError) as refused:
        read_private(path)
    assert refused.value.code == KEY_PERMISSIONS
    assert str(tmp_path) not in str(refused.value)


def test_a_write_replaces_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    write_atomic(path, b"long old content")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["value"]  # noqa: PTH208 - hidden files count


LIMITED = """
import resource, sys
from pathlib import Path
from bract.errors import BractError
from bract.files import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomic(Path(sys.argv[1]), bytes(100_000))
except BractError as error:
    sys.exit(error.code)
"""


def test_a_write_that_the_disk_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    path = tmp_path / "value"
    write_atomic(path, b"old")
    ended = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == DISK
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["value"]  # noqa: PTH208 - hidden files count


FULL = """
import os, sys
from pathlib import Path
from bract.errors import BractError
from bract.files import write_private
folder = Path(sys.argv[1])
write_private(folder / "value", b"old")
try:
    write_private(folder / "value", bytes(1 << 20))
except BractError as error:
    print(error.code, error.detail, os.listdir(folder), (folder / "value").read_bytes())
"""


def test_a_write_to_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    assert on_small_disk(tmp_path / "disk", 64, FULL).split() == [DISK, "ENOSPC", "['value']", "b'old'"]
