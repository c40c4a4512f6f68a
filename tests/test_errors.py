"""One line for a name that nobody has."""

from toolkit.errors import unknown_name


def test_a_name_like_no_other_lists_what_there_is():
    assert unknown_name("model", "zzz", ["b", "a"]) == "unknown model 'zzz'; known: a, b"
