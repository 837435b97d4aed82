from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from timetrial.framework.files import removed_on_error


class Stop(BaseException):
    pass


def test_a_failed_block_leaves_none_of_its_files_and_all_of_the_others(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    new = tmp_path / "a" / "b" / "new"
    with suppress(Stop), removed_on_error(new, tmp_path / "kept" / "old"):
        new.parent.mkdir(parents=True)
        new.write_text("new")
        (tmp_path / "kept" / "old").write_text("changed")
        raise Stop
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_others_use_stays(tmp_path: Path):
    with suppress(Stop), removed_on_error(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "other").write_text("of somebody else")
        raise Stop
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a" / "other"]


def test_a_block_that_succeeds_keeps_everything(tmp_path: Path):
    with removed_on_error(tmp_path / "a"):
        (tmp_path / "a").write_text("")
    assert (tmp_path / "a").exists()


def test_the_exception_goes_on(tmp_path: Path):
    with pytest.raises(Stop), removed_on_error(tmp_path / "a"):
        raise Stop
