"""A function of tensors as a network, for tests of one operator."""

from torch import nn


class Call(nn.Module):
    """A function as a module, with the modules it uses."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.modules_ = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.modules_)
