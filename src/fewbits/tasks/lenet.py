"""LeNets with ReLU and max pooling, for MNIST."""

from torch import nn


def lenet5() -> nn.Sequential:
    """An untrained LeNet-5 of 61 706 parameters, its layers at 0, 3, 7, 9, 11.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. Source: LeCun et al. 1998, "Gradient-based
    learning applied to document recognition", with ReLU for tanh and max pooling for subsampling.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def caffe_lenet() -> nn.Sequential:
    """An untrained LeNet as Caffe's MNIST example has it: 431 080 parameters, its layers at 0, 2, 5, 7.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. One ReLU only, behind the first linear layer.
    Source: BVLC Caffe, examples/mnist/lenet_train_test.prototxt; the LeNet of Ristretto and Deep Compression.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
