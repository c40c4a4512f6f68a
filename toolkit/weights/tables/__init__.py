"""The weights that were published, one family per file."""

from toolkit.weights.tables import alexnet, googlenet, nin, resnet, resnet_cifar, unpublished, vgg

#: Every family's table, by network. ``toolkit.catalogue`` joins them and refuses a network that stands in two.
TABLES = tuple(family.PUBLISHED for family in (alexnet, googlenet, nin, resnet, resnet_cifar, unpublished, vgg))
