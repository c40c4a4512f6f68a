"""Names: sorted, unique, joined with their weights once, and a mistyped one is answered with the nearest."""

from dataclasses import replace

import pytest

import toolkit
from toolkit.catalogue import join
from toolkit.errors import UserError


def test_names_are_sorted_and_complete():
    names = toolkit.list_models()
    assert names == sorted(names)
    assert {"lenet5", "resnet20", "resnet50"} <= set(names)


def test_info_bears_the_name_it_is_listed_under():
    assert all(toolkit.model_info(name).name == name for name in toolkit.list_models())


def test_a_taken_name_is_refused():
    info = toolkit.model_info("lenet5")
    with pytest.raises(ValueError, match=r"two networks are named 'lenet5': LeNet-5 and LeNet-5"):
        join([info, info], {}, {})


def test_weights_are_joined_once_and_to_a_network_that_is_there():
    info = toolkit.model_info("resnet20")
    row = info.weights["cifar10"]
    best, other = replace(row, tag="imagenet-best"), replace(row, tag="imagenet-other")
    assert join([info], {"resnet20": [row]}, {})["resnet20"].weights == {"cifar10": row}
    joined = join([info], {"resnet20": [best, other]}, {})["resnet20"]
    assert joined.weights == {"imagenet-best": best, "imagenet-other": other, "imagenet": best}
    with pytest.raises(ValueError, match="'resnet20' stand in two tables"):
        join([info], {"resnet20": [row]}, {"resnet20": "none"})
    for tables in (({"resnet21": [row]}, {}), ({}, {"resnet21": "none"})):
        with pytest.raises(ValueError, match="'resnet21', which is no network"):
            join([info], *tables)
    with pytest.raises(ValueError, match="'resnet20' has two sets of weights under the tag 'cifar10'"):
        join([info], {"resnet20": [row, row]}, {})


def test_the_catalogue_cannot_be_changed():
    with pytest.raises(TypeError):
        join([], {}, {})["lenet5"] = toolkit.model_info("lenet5")


def test_mistyped_name_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown model 'lenetS'; did you mean 'lenet5'") as caught:
        toolkit.model_info("lenetS")
    assert "\n" not in str(caught.value)
