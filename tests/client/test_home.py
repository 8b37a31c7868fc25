"""A site's folder: fresh private keys, strict settings, never over something."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import ALREADY_EXISTS, KEY_PERMISSIONS, MALFORMED, NOT_ENROLLED, NOT_INITIALISED, BractError
from bract_client.home import create, open_home
from bract_client.policy import DatasetCap, SitePolicy
from bract_client.settings import SiteSettings, read_settings, settings_toml


def code(call: object, *args: object, **named: object) -> str:
    with pytest.raises(BractError) as refused:
        call(*args, **named)  # type: ignore[operator]  # any function
    return refused.value.code


def test_a_new_site_has_keys_that_only_its_owner_can_read(tmp_path: Path) -> None:
    home = create(tmp_path / "clinic", name="clinic")
    assert {path.stat().st_mode & 0o777 for path in home.private_files} == {0o600}
    assert {p.stat().st_mode & 0o777 for p in home.root.rglob("*") if p.is_dir()} == {0o700}
    assert len(home.subject_key()) == 32
    assert open_home(tmp_path / "clinic") == home
    assert home.settings() == SiteSettings("clinic")
    assert code(home.bundle) == NOT_ENROLLED


def test_two_sites_share_no_key(tmp_path: Path) -> None:
    one, two = create(tmp_path / "one", name="clinic"), create(tmp_path / "two", name="clinic")
    for a, b in zip(one.private_files, two.private_files, strict=True):
        if a != one.settings_file:
            assert a.read_bytes() != b.read_bytes()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    home = create(tmp_path / "clinic", name="clinic")
    home.signing_key_file.chmod(0o644)
    home.subject_key_file.chmod(0o640)
    assert code(home.signing_key) == code(home.subject_key) == KEY_PERMISSIONS


def test_a_site_is_never_made_over_another_and_never_half(tmp_path: Path) -> None:
    home = create(tmp_path / "clinic", name="clinic")
    before = home.signing_key_file.read_bytes()
    assert code(create, tmp_path / "clinic", name="clinic") == ALREADY_EXISTS
    assert home.signing_key_file.read_bytes() == before
    assert code(create, tmp_path / "bad", name="Not A Name") == MALFORMED
    assert [path.name for path in tmp_path.iterdir()] == ["clinic"]


def test_a_folder_without_a_site_says_so(tmp_path: Path) -> None:
    assert code(open_home, tmp_path) == code(open_home, tmp_path / "absent") == NOT_INITIALISED


@given(
    floor=st.integers(1, 10**12),
    noise=st.floats(0.001, 1e6),
    caps=st.lists(st.builds(DatasetCap, st.from_regex("[a-z0-9][a-z0-9-]{0,8}", fullmatch=True), st.floats(0.1, 100))),
)
def test_settings_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, floor: int, noise: float, caps: list[DatasetCap]
) -> None:
    policy = replace(SitePolicy(), min_noise_multiplier=noise, datasets=tuple(caps))
    settings = SiteSettings("clinic", floor, policy=policy)
    path = tmp_path_factory.mktemp("s") / "settings.toml"
    path.write_bytes(settings_toml(settings))
    assert read_settings(path) == settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('name = "clinic"\nsubject_floor = 3', "subject_floor"),
        ('name = "clinic"\n[policy]\nmin_noise = 1.0', "policy.min_noise"),
        ('name = "clinic"\n[policy]\nmax_delta = 0.5', "policy.max_delta"),
        ('name = "clinic"\n[policy]\nobjectives = ["simclr"]', "policy.objectives"),
        ('name = "clinic"\n[policy]\nmax_clip = nan', "policy.max_clip"),
        ("subjects_floor = 3", "name"),
        ("name = ", "not TOML"),
    ],
)
def test_a_typo_in_settings_is_named_and_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    with pytest.raises(BractError) as refused:
        read_settings(path)
    assert refused.value.code == MALFORMED
    assert named in refused.value.detail
