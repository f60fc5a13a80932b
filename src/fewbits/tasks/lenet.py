"""LeNets for MNIST, with ReLU and max pooling: LeNet-5, and the two that Deep Compression reports."""

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


def lenet_300_100() -> nn.Sequential:
    """An untrained network of two hidden layers, 266 610 parameters, its layers at 1, 3, 5.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. Source: LeCun et al. 1998 as Han, Mao and Dally 2016,
    arXiv:1510.00149, Table 2, take it: 784-300-100-10, with ReLU.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def lenet_caffe() -> nn.Sequential:
    """Caffe's "LeNet", untrained: 20-50-500-10, 431 080 parameters, its layers at 0, 2, 5, 7.

    forward: float32 [N, 1, 28, 28] -> logits float32 [N, 10]. No ReLU follows the convolutions. Source:
    BVLC/caffe, examples/mnist/lenet.prototxt; the "LeNet-5" of arXiv:1510.00149, Table 3.
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


def lenet_xavier() -> nn.Sequential:
    """`lenet_caffe` as Caffe begins it: weights even within ±√(3 / inputs of the layer), its filler "xavier"; biases 0.

    Weights that stay as even as they begin lose less to a few evenly spaced numbers than those of a long tail.
    """
    net = lenet_caffe()
    for parameter in net.parameters():
        bound = (3 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.0
        nn.init.uniform_(parameter, -bound, bound)
    return net
