"""The networks, one family per file; importing this package registers them all and imports no framework."""

from toolkit.models import alexnet, baselines, googlenet, highway, lenet, nin, resnet, resnet_cifar, vgg, zfnet

__all__ = ["alexnet", "baselines", "googlenet", "highway", "lenet", "nin", "resnet", "resnet_cifar", "vgg", "zfnet"]
