"""From images to images, boxes and codes: segmentation, detection parts, generation, restoration."""

import torch
from torch import nn
from torch.nn import functional as F
from zoo_layers import Apply, Concat, Made, Sum, chain, conv, depthwise, images, residual


class _Unet(nn.Module):
    """Ronneberger et al. 2015, arXiv:1505.04597."""

    def __init__(self, up: nn.Module):
        super().__init__()
        self.first, self.second, self.up, self.last = conv(3, 6), chain(nn.MaxPool2d(2), conv(6, 8)), up, conv(12, 6)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        wide = self.first(x)
        return self.head(self.last(torch.cat([wide, self.up(self.second(wide))], 1)))


def unet_transposed() -> Made:
    return _Unet(nn.ConvTranspose2d(8, 6, 2, 2)), images()


def unet_bilinear() -> Made:
    return _Unet(chain(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(8, 6, 1))), images()


def unet_nearest() -> Made:
    return _Unet(chain(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 1))), images()


def fcn() -> Made:
    """Long et al. 2014, arXiv:1411.4038."""

    class Fcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = chain(conv(3, 6, 3, 2), conv(6, 8, 3, 2)), nn.Conv2d(8, 3, 1)

        def forward(self, x):
            return F.interpolate(self.head(self.body(x)), size=x.shape[2:], mode="bilinear", align_corners=False)

    return Fcn(), images()


def deeplab() -> Made:
    """Atrous pyramid with an image-wide branch: arXiv:1706.05587."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.ReLU())

        def forward(self, x):
            return self.body(x).expand(-1, -1, x.shape[2], x.shape[3])

    pyramid = Concat(conv(6, 4, 1), conv(6, 4, dilation=2), conv(6, 4, dilation=4), Pooled())
    return chain(
        conv(3, 6, 3, 2), pyramid, conv(16, 8, 1), nn.Conv2d(8, 3, 1), nn.Upsample(scale_factor=2, mode="bilinear")
    ), images()


def pyramid_scene() -> Made:
    """Average pools of several sizes, resized back: arXiv:1612.01105."""

    def level(size: int) -> nn.Module:
        return chain(nn.AvgPool2d(size), conv(6, 2, 1), nn.Upsample(scale_factor=size))

    return chain(conv(3, 6), Concat(nn.Identity(), level(2), level(4)), nn.Conv2d(10, 3, 1)), images()


def feature_pyramid() -> Made:
    """Three scales out, in a dict: Lin et al. 2016, arXiv:1612.03144."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.ModuleList([conv(3, 6, 3, 2), conv(6, 8, 3, 2)])
            self.side = nn.ModuleList([nn.Conv2d(6, 4, 1), nn.Conv2d(8, 4, 1)])
            self.smooth = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            large = self.down[0](x)
            small = self.side[1](self.down[1](large))
            large = self.side[0](large) + F.interpolate(small, scale_factor=2.0, mode="nearest")
            return {"large": self.smooth(large), "small": small, "pooled": F.max_pool2d(small, 1, 2)}

    return Pyramid(), images()


def ssd_heads() -> Made:
    """Boxes and classes of two scales in one row each: Liu et al. 2015, arXiv:1512.02325."""

    class Ssd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = conv(3, 6, 3, 2), conv(6, 8, 3, 2)
            self.boxes = nn.ModuleList([nn.Conv2d(c, 8, 3, padding=1) for c in (6, 8)])
            self.classes = nn.ModuleList([nn.Conv2d(c, 6, 3, padding=1) for c in (6, 8)])

        def forward(self, x):
            first = self.first(x)
            maps = (first, self.second(first))

            def rows(layers, width):
                return torch.cat(
                    [
                        layer(m).permute(0, 2, 3, 1).reshape(x.shape[0], -1, width)
                        for layer, m in zip(layers, maps, strict=True)
                    ],
                    1,
                )

            return rows(self.boxes, 4), rows(self.classes, 3)

    return Ssd(), images()


def yolo_head() -> Made:
    """Leaky ReLU, a route with upsampling, sigmoid of places and confidences: arXiv:1804.02767."""

    class Yolo(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (
                chain(conv(3, 6, 3, 2, act=None), nn.LeakyReLU(0.1)),
                chain(conv(6, 6, 3, 2, act=None), nn.LeakyReLU(0.1)),
            )
            self.head = nn.Conv2d(12, 2 * 7, 1)

        def forward(self, x):
            first = self.first(x)
            y = self.head(torch.cat([F.interpolate(self.second(first), scale_factor=2.0), first], 1))
            y = y.view(x.shape[0], 2, 7, 8, 8).permute(0, 1, 3, 4, 2)
            return torch.cat([y[..., :2].sigmoid(), y[..., 2:4], y[..., 4:].sigmoid()], -1)

    return Yolo(), images()


def center_net() -> Made:
    """Heat map, sizes and offsets as a dict: Zhou et al. 2019, arXiv:1904.07850."""

    class Center(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = chain(conv(3, 6, 3, 2), conv(6, 6))
            self.heat, self.size = (
                chain(conv(6, 4), nn.Conv2d(4, 3, 1), nn.Sigmoid()),
                chain(conv(6, 4), nn.Conv2d(4, 2, 1)),
            )

        def forward(self, x):
            x = self.body(x)
            return {"heat": self.heat(x), "size": self.size(x)}

    return Center(), images()


def hourglass() -> Made:
    """Newell et al. 2016, arXiv:1603.06937."""
    inner = chain(
        nn.MaxPool2d(2),
        Sum(conv(6, 6), chain(nn.MaxPool2d(2), conv(6, 6), nn.Upsample(scale_factor=2))),
        nn.Upsample(scale_factor=2),
    )
    return chain(conv(3, 6), Sum(conv(6, 6), inner), nn.Conv2d(6, 4, 1)), images()


def fast_segmentation() -> Made:
    """ENet's first block and asymmetric convolutions: arXiv:1606.02147."""
    start = chain(Concat(nn.Conv2d(3, 5, 3, 2, 1), nn.MaxPool2d(2)), nn.BatchNorm2d(8), nn.PReLU(8))
    body = residual(
        conv(8, 4, 1),
        nn.Conv2d(4, 4, (5, 1), padding=(2, 0)),
        nn.Conv2d(4, 4, (1, 5), padding=(0, 2)),
        conv(4, 8, 1, act=None),
    )
    return chain(start, body, nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2)), images()


def convolutional_autoencoder() -> Made:
    return chain(
        conv(1, 6, 3, 2),
        conv(6, 4, 3, 2),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 1, 3, 2, 1, 1),
        nn.Sigmoid(),
    ), images(16, 1)


def dense_autoencoder() -> Made:
    return chain(
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
        nn.Linear(3, 12),
        nn.ReLU(),
        nn.Linear(12, 64),
        nn.Unflatten(1, (1, 8, 8)),
    ), images(8, 1)


def variational_encoder() -> Made:
    """Mean and spread of the code: Kingma and Welling 2013, arXiv:1312.6114."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.mean, self.spread = (
                chain(conv(1, 4, 3, 2), nn.Flatten()),
                nn.Linear(64, 3),
                nn.Linear(64, 3),
            )

        def forward(self, x):
            x = self.body(x)
            return self.mean(x), torch.exp(0.5 * self.spread(x))

    return Encoder(), images(8, 1)


def dcgan_generator() -> Made:
    """Radford et al. 2015, arXiv:1511.06434."""
    return chain(
        nn.ConvTranspose2d(6, 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 3, 4, 2, 1),
        nn.Tanh(),
    ), images(1, 6)


def dcgan_discriminator() -> Made:
    return chain(
        nn.Conv2d(3, 6, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(6, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 4),
        nn.Flatten(),
    ), images()


def srcnn() -> Made:
    return chain(
        nn.Conv2d(1, 8, 9, padding=4), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 1, 5, padding=2)
    ), images(16, 1)


def espcn() -> Made:
    """Pixel shuffle: Shi et al. 2016, arXiv:1609.05158."""
    return chain(nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 9, 3, padding=1), nn.PixelShuffle(3)), images(
        8, 1
    )


def edsr() -> Made:
    """Scaled residuals without norm: arXiv:1707.02921."""

    def block() -> nn.Module:
        return residual(
            nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), Apply(lambda x: 0.1 * x)
        )

    return chain(
        nn.Conv2d(3, 6, 3, padding=1), residual(block(), block()), nn.Conv2d(6, 12, 3, padding=1), nn.PixelShuffle(2)
    ), images(8)


def dncnn() -> Made:
    """The noise, subtracted: Zhang et al. 2016, arXiv:1608.03981."""

    class Denoise(nn.Module):
        def __init__(self):
            super().__init__()
            self.noise = chain(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), conv(6, 6), nn.Conv2d(6, 1, 3, padding=1))

        def forward(self, x):
            return x - self.noise(x)

    return Denoise(), images(12, 1)


def residual_dense() -> Made:
    """arXiv:1802.08797."""

    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.join = conv(6, 4), conv(10, 4), nn.Conv2d(14, 6, 1)

        def forward(self, x):
            y = torch.cat([x, self.first(x)], 1)
            return x + self.join(torch.cat([y, self.second(y)], 1))

    return chain(conv(3, 6), Dense(), nn.Conv2d(6, 3, 3, padding=1)), images(12)


def style_transfer() -> Made:
    """Reflection and instance norm: Johnson et al. 2016, arXiv:1603.08155."""
    return chain(
        nn.ReflectionPad2d(2),
        nn.Conv2d(3, 6, 5),
        nn.InstanceNorm2d(6, affine=True),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 3, 3, padding=1),
        nn.Tanh(),
    ), images(12)


def space_to_depth() -> Made:
    """YOLOv5's focus: four neighbours as channels."""
    focus = Apply(lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1))
    return chain(focus, conv(12, 8), depthwise(8), nn.Conv2d(8, 4, 1)), images()


def volume_unet() -> Made:
    """3-D U-Net: arXiv:1606.06650."""
    return chain(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.BatchNorm3d(4),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose3d(4, 2, 2, 2),
    ), torch.randn(2, 1, 4, 8, 8)


NETWORKS = (
    unet_transposed,
    unet_bilinear,
    unet_nearest,
    fcn,
    deeplab,
    pyramid_scene,
    feature_pyramid,
    ssd_heads,
    yolo_head,
    center_net,
    hourglass,
    fast_segmentation,
    convolutional_autoencoder,
    dense_autoencoder,
    variational_encoder,
    dcgan_generator,
    dcgan_discriminator,
    srcnn,
    espcn,
    edsr,
    dncnn,
    residual_dense,
    style_transfer,
    space_to_depth,
    volume_unet,
)
