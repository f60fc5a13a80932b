"""Signals, text, points, tables and video."""

import torch
from torch import nn
from torch.nn import functional as F
from zoo_layers import Apply, Made, Product, chain, residual, signals, tokens


def mlp() -> Made:
    return chain(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 12)


def mlp_mixed() -> Made:
    """One of each smooth activation."""
    return chain(
        nn.Linear(12, 8),
        nn.ELU(),
        nn.Linear(8, 8),
        nn.SELU(),
        nn.Linear(8, 8),
        nn.PReLU(),
        nn.Linear(8, 8),
        nn.Softplus(),
        nn.Linear(8, 8),
        nn.Mish(),
        nn.Linear(8, 3),
        nn.LogSoftmax(1),
    ), torch.randn(4, 12)


class _Causal(nn.Module):
    """Dilated, padded in front only: Bai et al. 2018, arXiv:1803.01271."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.pad, self.conv = 2 * dilation, nn.Conv1d(channels, channels, 3, dilation=dilation)

    def forward(self, x):
        return F.relu(x + F.relu(self.conv(F.pad(x, (self.pad, 0)))))


def tcn() -> Made:
    return chain(_Causal(4, 1), _Causal(4, 2), Apply(lambda x: x[:, :, -1]), nn.Linear(4, 3)), signals()


class _Wave(nn.Module):
    """tanh times sigmoid: van den Oord et al. 2016, arXiv:1609.03499."""

    def __init__(self, channels: int):
        super().__init__()
        self.body, self.join = nn.Conv1d(channels, 2 * channels, 3, padding=1), nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        value, gate = self.body(x).chunk(2, 1)
        return x + self.join(torch.tanh(value) * torch.sigmoid(gate))


def wavenet() -> Made:
    return chain(_Wave(4), nn.Conv1d(4, 3, 1)), signals()


def audio_m5() -> Made:
    """Raw waves: Dai et al. 2016, arXiv:1610.00087."""
    return chain(
        nn.Conv1d(1, 8, 16, 4),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(8, 8, 3),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ), signals(1, 128)


def ecg_resnet() -> Made:
    def block() -> nn.Module:
        return residual(
            nn.Conv1d(6, 6, 5, padding=2, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 5, padding=2)
        )

    return chain(
        nn.Conv1d(4, 6, 7, 2, 3), block(), nn.ReLU(), nn.AvgPool1d(2), Apply(lambda x: x.mean(2)), nn.Linear(6, 3)
    ), signals()


class _TextCnn(nn.Module):
    """Kim 2014, arXiv:1408.5882."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(8, 2)
        self.convs = nn.ModuleList(nn.Conv1d(6, 4, size) for size in (2, 3))

    def forward(self, ids):
        x = self.embed(ids).transpose(1, 2)
        return self.head(torch.cat([F.relu(layer(x)).max(2).values for layer in self.convs], 1))


def text_cnn() -> Made:
    return _TextCnn(), tokens()


class _Bag(nn.Module):
    """fastText: the mean of the words, arXiv:1607.01759."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 6), nn.Linear(6, 2)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


def bag_of_words() -> Made:
    return _Bag(), tokens()


class _Cells(nn.Module):
    """A cell of torch's, unrolled over five steps."""

    def __init__(self, cell: nn.Module):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(6, 3)

    def forward(self, x):
        state = None
        for t in range(5):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def lstm_cell() -> Made:
    return _Cells(nn.LSTMCell(4, 6)), torch.randn(2, 5, 4)


def gru_cell() -> Made:
    return _Cells(nn.GRUCell(4, 6)), torch.randn(2, 5, 4)


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def lstm() -> Made:
    return _Recurrent(nn.LSTM(4, 6, batch_first=True)), torch.randn(2, 5, 4)


def gru() -> Made:
    return _Recurrent(nn.GRU(4, 6, batch_first=True)), torch.randn(2, 5, 4)


class _Gates(nn.Module):
    """An LSTM step written out in linear layers: what a weight is shared over the steps of."""

    def __init__(self):
        super().__init__()
        self.gates, self.head = nn.Linear(10, 24), nn.Linear(6, 3)

    def forward(self, x):
        hidden = cell = torch.zeros_like(x[:, 0, :1]).expand(-1, 6)
        for t in range(3):
            i, f, g, o = self.gates(torch.cat([x[:, t], hidden], 1)).chunk(4, 1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
        return self.head(hidden)


def lstm_written_out() -> Made:
    return _Gates(), torch.randn(2, 3, 4)


class _Elman(nn.Module):
    """A recurrent network with ReLU: arXiv:1504.00941."""

    def __init__(self):
        super().__init__()
        self.inward, self.onward, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        hidden = F.relu(self.inward(x[:, 0]))
        for t in range(1, 4):
            hidden = F.relu(self.inward(x[:, t]) + self.onward(hidden))
        return self.head(hidden)


def relu_rnn() -> Made:
    return _Elman(), torch.randn(2, 4, 4)


class _PointNet(nn.Module):
    """Shared layers, the largest over all points, joined to each: Qi et al. 2016, arXiv:1612.00593."""

    def __init__(self):
        super().__init__()
        self.first = chain(nn.Conv1d(3, 6, 1), nn.BatchNorm1d(6), nn.ReLU())
        self.second, self.head = chain(nn.Conv1d(6, 8, 1), nn.ReLU()), nn.Conv1d(14, 4, 1)

    def forward(self, x):
        each = self.first(x)
        whole = torch.amax(self.second(each), 2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.head(torch.cat([each, whole], 1))


def pointnet() -> Made:
    return _PointNet(), signals(3, 12)


def c3d() -> Made:
    """Tran et al. 2014, arXiv:1412.0767."""
    return chain(
        nn.Conv3d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Flatten(),
        nn.Linear(48, 4),
    ), torch.randn(2, 3, 4, 8, 8)


def r2plus1d() -> Made:
    """Space, then time: arXiv:1711.11248."""
    return chain(
        nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(6),
        nn.ReLU(),
        nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0)),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ), torch.randn(2, 3, 4, 6, 6)


class _Conformer(nn.Module):
    """The convolution module: GLU, depthwise, swish: Gulati et al. 2020, arXiv:2005.08100."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.expand = nn.LayerNorm(width), nn.Conv1d(width, 2 * width, 1)
        self.depthwise = chain(nn.Conv1d(width, width, 5, padding=2, groups=width), nn.BatchNorm1d(width), nn.SiLU())
        self.shrink = nn.Conv1d(width, width, 1)

    def forward(self, x):
        y = F.glu(self.expand(self.norm(x).transpose(1, 2)), 1)
        return x + self.shrink(self.depthwise(y)).transpose(1, 2)


def conformer() -> Made:
    return chain(_Conformer(6), nn.Linear(6, 4)), torch.randn(2, 8, 6)


class _WideDeep(nn.Module):
    """Two inputs, numbers and categories: Cheng et al. 2016, arXiv:1606.07792."""

    def __init__(self):
        super().__init__()
        self.embed, self.deep, self.wide = (
            nn.Embedding(20, 4),
            chain(nn.Linear(13, 8), nn.ReLU(), nn.Linear(8, 1)),
            nn.Linear(5, 1),
        )

    def forward(self, numbers, ids):
        deep = torch.cat([numbers, self.embed(ids).flatten(1)], 1)
        return torch.sigmoid(self.deep(deep) + self.wide(numbers))


def wide_and_deep() -> Made:
    return _WideDeep(), (torch.randn(2, 5), tokens(20, 2))


class _Siamese(nn.Module):
    """One network on two inputs, compared: what modules are reused for."""

    def __init__(self):
        super().__init__()
        self.body, self.head = chain(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6)), nn.Linear(6, 1)

    def forward(self, one, other):
        return self.head(torch.abs(self.body(one) - self.body(other)))


def siamese() -> Made:
    return _Siamese(), (torch.randn(3, 8), torch.randn(3, 8))


class _TwoTowers(nn.Module):
    """Two inputs whose features are added and joined."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.head = (
            chain(nn.Linear(8, 6), nn.ReLU()),
            chain(nn.Linear(5, 6), nn.ReLU()),
            nn.Linear(12, 2),
        )

    def forward(self, one, other):
        one, other = self.one(one), self.other(other)
        return self.head(torch.cat([one + other, other], 1))


def two_towers() -> Made:
    return _TwoTowers(), (torch.randn(3, 8), torch.randn(3, 5))


class _Graph(nn.Module):
    """A fixed graph's neighbours summed: Kipf and Welling 2016, arXiv:1609.02907."""

    def __init__(self, nodes: int = 6):
        super().__init__()
        self.register_buffer("neighbours", torch.rand(nodes, nodes).softmax(1))
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(torch.matmul(self.neighbours, self.first(x)))
        return torch.matmul(self.neighbours, self.second(x))


def graph_convolution() -> Made:
    return _Graph(), torch.randn(2, 6, 4)


def gated_mlp() -> Made:
    """SwiGLU without attention around it."""
    return chain(Product(chain(nn.Linear(8, 12), nn.SiLU()), nn.Linear(8, 12)), nn.Linear(12, 3)), torch.randn(3, 8)


NETWORKS = (
    mlp,
    mlp_mixed,
    tcn,
    wavenet,
    audio_m5,
    ecg_resnet,
    text_cnn,
    bag_of_words,
    lstm_cell,
    gru_cell,
    lstm,
    gru,
    lstm_written_out,
    relu_rnn,
    pointnet,
    c3d,
    r2plus1d,
    conformer,
    wide_and_deep,
    siamese,
    two_towers,
    graph_convolution,
    gated_mlp,
)
