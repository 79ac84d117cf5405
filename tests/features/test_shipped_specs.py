"""`--spec` by the name of a spec that comes with the package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lfm4ads_tf.config import resolve
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.spec_check import read_spec
from lfm4ads_tf.features.shipped_specs import shipped_specs, spec_file
from lfm4ads_tf.features.spec_file import load_spec

FOLDER = Path(__file__).resolve().parents[2] / "feature_specs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def test_every_spec_of_the_folder_has_its_name() -> None:
    assert NAMES and list(shipped_specs()) == NAMES
    assert [path.read_bytes() for path in shipped_specs().values()] == [
        (FOLDER / f"{name}.yaml").read_bytes() for name in NAMES
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_what_the_file_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a run folder records is the resolved configuration; no path is in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # a folder is no spec
    copy = shutil.copy(FOLDER / f"{name}.yaml", tmp_path / "elsewhere.yaml")
    wanted = resolve(Path(copy)).to_yaml()
    for given in (name, f"{name}.yaml"):
        assert resolve(Path(given)).to_yaml() == wanted
        assert load_spec(Path(given)) == load_spec(Path(copy)) == read_spec(Path(given))


def test_files_of_the_user_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("synthetic.yaml")
    assert spec_file(own) == spec_file(Path("synthetic")) == shipped_specs()["synthetic"]
    own.touch()
    assert spec_file(own) == own
    assert spec_file(Path("synthetic")) == shipped_specs()["synthetic"]
    absent = tmp_path / "movielens.yaml"  # a path, not a name
    assert spec_file(absent) == absent


@pytest.mark.parametrize("given", ["kuairnd", "kuairnd.yaml", "none/kuairand.yaml"])
def test_an_unknown_name_is_told_with_the_known_ones(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (resolve, load_spec, read_spec):
        with pytest.raises(UserError, match=f"The file {given} cannot be read") as error:
            read(Path(given))
        assert ", ".join(NAMES) in str(error.value)
