"""A folder is made whole, or not at all, and never over something."""

from pathlib import Path

import pytest

from bract.errors import ALREADY_EXISTS, BractError
from bract.folders import new_folder


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_appears_when_it_is_whole(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "new"
    if there:
        target.mkdir()
    with new_folder(target) as scratch:
        (scratch / "file").write_text("x")
        assert not (target / "file").exists()
    assert (target / "file").read_text() == "x"
    assert target.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_nothing_is_left_of_a_folder_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "new") as scratch:
        (scratch / "file").write_text("x")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "there"
    if kind == "folder":
        target.mkdir()
        (target / "kept").write_text("x")
    else:
        target.write_text("x")
    with pytest.raises(BractError) as refused, new_folder(target):
        pytest.fail("a scratch folder was made")
    assert refused.value.code == ALREADY_EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
