"""One line for a name that nobody has."""

from toolkit.errors import nearest, unknown_name


def test_a_name_like_no_other_lists_what_there_is():
    assert unknown_name("model", "zzz", ["b", "a"]) == "unknown model 'zzz'; known: a, b"


def test_the_nearest_is_found_in_any_case_and_behind_an_end_of_its_own():
    assert nearest("MOBILENETV2", ["MobileNetV2", "VGG16"]) == ["MobileNetV2"]
    assert nearest("vgg16-of-my-shop", ["vgg16", "vgg"]) == ["vgg16"]
    assert nearest("zzz", ["vgg16"]) == []
    assert nearest("zzz", ["aaaa", "zaa"], count=1, least=0) == ["zaa"]
