"""Gradients of the registered networks against numerical ones, and the command that shows them."""

import json

import pytest

import toolkit
from toolkit.errors import UserError
from toolkit.workflows.gradcheck import check_model_gradients


@pytest.mark.parametrize("name", ["lenet5", pytest.param("nin_cifar", marks=pytest.mark.slow), "highway_mlp"])
def test_registered_network_passes(name):
    report = check_model_gradients(name, num_entries=1, batch_size=2)
    assert report["passed"], report["variables"][0]
    assert len(report["variables"]) == len(toolkit.create_model(name).trainable_variables)


# Fresh networks with batch normalisation and no shortcuts multiply slopes by about 1.2 a layer (G. Yang et al., A Mean
# Field Theory of Batch Normalization, 2019). Behind 56 of them every step measures kinks or the rounding of float64;
# plain44 is of the same builder. xo has no parameters, and resnet152 takes long and is resnet101 with more blocks.
NOT_CHECKED = ("plain56", "plain110", "xo", "resnet152")


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", ["batch", "running"])
@pytest.mark.parametrize("name", [name for name in toolkit.list_models() if name not in NOT_CHECKED])
def test_every_network_passes(name, batch_norm):
    # Four pictures: over two values, all that is left of some maps, batch normalisation answers ±1 whatever they are.
    # Two entries: of one with a small gradient, behind many ReLUs, every step measures kinks or rounding.
    report = check_model_gradients(name, num_entries=2, batch_size=4, batch_norm=batch_norm)
    assert report["passed"], report["variables"][0]


def test_network_without_parameters_is_refused():
    with pytest.raises(UserError, match="no trainable parameters"):
        check_model_gradients("xo")


def test_command_prints_the_worst(capsys):
    from toolkit.cli.parser import build_parser

    arguments = build_parser().parse_args(["gradcheck", "lenet5", "--entries", "1", "--json"])
    from toolkit.cli import commands

    getattr(commands, arguments.handler)(arguments)
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    differences = [row["difference"] for row in report["variables"]]
    assert report["worst"] == report["variables"][0]["name"]
    assert differences == sorted(differences, reverse=True)
