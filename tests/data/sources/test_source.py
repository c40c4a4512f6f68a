"""An owner's words about a data set go along with its path, also through another process's arguments."""

import os
from pathlib import Path

import pytest

from toolkit.cli.parser import build_parser
from toolkit.data import Source
from toolkit.data.sources.source import as_source, parse_split_folders
from toolkit.errors import UserError


@pytest.mark.parametrize("folders", [None, {}, {"fold 1": "train", "b/c": "val"}])
@pytest.mark.parametrize("joined", [True, False])
def test_arguments_mean_the_same_data_set(folders, joined):
    words = ["check", *Source(Path("pets"), folders, joined).arguments()]
    read = build_parser().parse_args(words)
    splits = None if read.split_folders is None else parse_split_folders(read.split_folders)
    assert Source(read.data, splits, read.join_classes) == Source(Path("pets"), folders, joined)


def test_a_source_stands_for_its_path(tmp_path):
    source = Source(tmp_path)
    assert (str(source), os.fspath(source), Path(source)) == (str(tmp_path), str(tmp_path), tmp_path)
    assert as_source(source) is source
    assert as_source(str(tmp_path)) == source
    assert source.exists()
    assert Source(str(tmp_path), devkit=str(tmp_path)) == Source(tmp_path, devkit=tmp_path)
    assert not Source(tmp_path / "nothing").exists()


@pytest.mark.parametrize("text", ["", "one", "train=", "eval=a", "train=a,val=a", "train=a,,"])
def test_other_words_for_split_folders_are_one_clear_line(text):
    with pytest.raises(UserError, match=r"expected train=FOLDER,val=FOLDER,test=FOLDER"):
        parse_split_folders(text)
