"""Names: sorted, unique, and a mistyped one is answered with the nearest."""

import pytest

import toolkit
from toolkit import catalogue as registry
from toolkit.errors import UserError


def test_names_are_sorted_and_complete():
    names = toolkit.list_models()
    assert names == sorted(names)
    assert {"lenet5", "resnet20", "resnet50"} <= set(names)


def test_info_bears_the_name_it_is_listed_under():
    assert all(toolkit.model_info(name).name == name for name in toolkit.list_models())


def test_a_taken_name_is_refused():
    info = toolkit.model_info("lenet5")
    with pytest.raises(ValueError, match=r"'lenet5' is already registered \(LeNet-5\)"):
        registry.register(info)
    assert toolkit.model_info("lenet5") is info


def test_mistyped_name_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown model 'lenetS'; did you mean 'lenet5'") as caught:
        toolkit.model_info("lenetS")
    assert "\n" not in str(caught.value)
