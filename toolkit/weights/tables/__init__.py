"""What weights were published, one family per file; importing this package registers them all, no framework needed."""

from toolkit.weights.tables import alexnet, googlenet, nin, resnet, resnet_cifar, unpublished, vgg

__all__ = ["alexnet", "googlenet", "nin", "resnet", "resnet_cifar", "unpublished", "vgg"]
