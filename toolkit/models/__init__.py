"""The networks, one family per file; importing this package imports no framework."""

from toolkit.models import alexnet, baselines, googlenet, highway, lenet, nin, resnet, resnet_cifar, vgg, zfnet

_FAMILIES = (alexnet, baselines, googlenet, highway, lenet, nin, resnet, resnet_cifar, vgg, zfnet)
#: Every family's table in a row. ``toolkit.catalogue`` joins it with the weights and refuses a name that stands twice.
NETWORKS = tuple(network for family in _FAMILIES for network in family.NETWORKS)
