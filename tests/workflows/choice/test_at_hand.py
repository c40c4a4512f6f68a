"""Networks whose weights are on this machine."""

import pytest

from toolkit import model_info
from toolkit.bundle import SHIPPED, find_bundle, shipped_bundle
from toolkit.errors import UserError
from toolkit.weights.download import cached_path
from toolkit.workflows.choice.at_hand import AtHand, network_named_in, networks_at_hand


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("googlenet_bvlc.caffemodel", "googlenet"),
        ("bvlc_googlenet.caffemodel", "googlenet"),
        ("ResNet50-11ad3fa6.pth", "resnet50"),
        ("torch.vgg16-397923af.pth", "vgg16"),
        ("highway_cnn19.safetensors", "highway_cnn19"),
        ("myresnet50x.pth", None),
        ("notes.pth", None),
    ],
)
def test_files_are_known_by_their_networks_names(file, name):
    assert network_named_in(file) == name


def test_folder_of_files(tmp_path):
    for file in ("resnet50.pth", "lenet5.safetensors", "lenet5_old.safetensors", "lenet5.txt", "other.pth"):
        (tmp_path / file).touch()
    found = networks_at_hand((), tmp_path)
    assert found == [
        AtHand(name, str(tmp_path / name) + end) for name, end in (("lenet5", ".safetensors"), ("resnet50", ".pth"))
    ]
    assert networks_at_hand(("resnet50",), str(tmp_path)) == found[1:]
    assert networks_at_hand((), tmp_path / "resnet50.pth") == found[1:]
    with pytest.raises(UserError, match=r"no weights file in .* of vgg16; name its files after their networks"):
        networks_at_hand(("resnet50", "vgg16"), tmp_path)


def test_bundles():
    shipped = {name: shipped_bundle(name) for name in SHIPPED}
    folder = shipped["resnet18-thin"].parent
    found = networks_at_hand((), folder)
    assert {AtHand("resnet18", str(shipped["resnet18-thin"])), AtHand("lenet5", str(shipped["lenet5-mnist"]))} <= {
        *found
    }
    for weights in ("resnet18-thin", shipped["resnet18-thin"], find_bundle(shipped["resnet18-thin"])):
        (own,) = networks_at_hand((), weights)
        assert own.name == "resnet18"
    with pytest.raises(UserError, match="is of resnet50; "):
        networks_at_hand(("resnet50",), "resnet18-thin")


def test_downloaded_weights():
    with pytest.raises(UserError, match=r"no downloaded weights .* `toolkit weights download resnet50` brings some"):
        networks_at_hand((), "imagenet")
    for name in ("resnet50", "googlenet"):
        place = cached_path(model_info(name).weights["imagenet"])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    assert networks_at_hand((), "imagenet") == [AtHand("googlenet", "imagenet"), AtHand("resnet50", "imagenet")]
    with pytest.raises(UserError, match=r"^gone: no such folder or file, nor a tag"):
        networks_at_hand((), "gone")
    with pytest.raises(UserError, match="vgg16"):
        networks_at_hand(("vgg16",), "imagenet")
    with pytest.raises(UserError, match="unknown model 'resnet51'"):
        networks_at_hand(("resnet51",), "imagenet")
