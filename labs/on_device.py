# %% [markdown]
# # The On-Device AI lab: seven exercises, and PyTorch beside them
#
# The lab "Quantization for CNN" (SKKU) fills in seven pieces of code: linear quantization, its scale and zero point,
# a fully connected and a convolutional layer in integers, inference with the quantized model, k-means quantization,
# and its fine-tuning. Each is one public function of `fewbits`; the lab's own lines stand above it and must give the
# same.

# %%
import copy
import logging
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import fewbits as fb

plots, table = fb.plots, fb.plots.table

# %% [markdown]
# Settings: `--set data=mnist:DIR` runs exercises 5 to 7 on MNIST.

# %% tags=["parameters"]
data = "digits"
epochs = 8
tuning_epochs = 3

# %% [markdown]
# ## Exercise 1. linear_quantize
#
# Codes of N bits reach from −2ᴺ⁻¹ to 2ᴺ⁻¹ − 1:

# %%
print(table(["bits", "q_min", "q_max"], [[bits, fb.parse(f"int{bits}").low, fb.parse(f"int{bits}").high]
                                         for bits in (2, 3, 4, 8)]))
assert [(fb.parse(f"int{bits}").low, fb.parse(f"int{bits}").high) for bits in (2, 3, 4)] == [(-2, 1), (-4, 3), (-8, 7)]
W = torch.tensor([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0.0, -1.03],
                  [1.87, 0.0, 1.53, 1.49]])


def linear_quantize(fp_tensor, bitwidth, scale, zero_point):
    """The lab's lines, with the cast behind the clamp."""
    quantized_min, quantized_max = -(2 ** (bitwidth - 1)), 2 ** (bitwidth - 1) - 1
    scaled_tensor = fp_tensor / scale
    rounded_tensor = torch.round(scaled_tensor)
    shifted_tensor = rounded_tensor + zero_point
    return shifted_tensor.clamp(quantized_min, quantized_max).to(torch.int8)


printed = linear_quantize(W, 2, 1.07, -1)
ours = fb.linear_quantize(W, 2, scale=1.07, zero_point=-1)
print(printed)
assert printed.tolist() == ours.codes.tolist() == [[1, -2, 0, -1], [-1, -1, -2, 1], [-2, 1, -1, -2], [1, -1, 0, 0]]
plots.matrices("q = r ÷ S + Z, rounded and clamped", [("weights", W), ("codes of 2 bits", ours.codes),
                                                      ("S (q − Z)", ours.dequantize())])

# %% [markdown]
# "q = r/s + z" and "int(round(r/s)) + z" leave the clamp out. The lab's cast to int8 stands before Z is added; then
# sums beyond 127 wrap around, and a large number becomes a small one:

# %%
wrapped = torch.round(torch.tensor([200.0]) / 1.0).to(torch.int8) + 10
clamped = fb.linear_quantize([200.0], 8, scale=1.0, zero_point=10).codes
print(f"200 with S = 1, Z = 10: cast first {int(wrapped)}, clamped first {int(clamped[0])}")
assert int(wrapped) == -46
assert int(clamped[0]) == 127

# %% [markdown]
# The lab's own test tensor, 5×5 in 2 bits:

# %%
test_tensor = torch.tensor([[0.0523, 0.6364, -0.0968, -0.0020, 0.1940], [0.7500, 0.5507, 0.6188, -0.1734, 0.4677],
                            [-0.0669, 0.3836, 0.4297, 0.6267, -0.0695], [0.1536, -0.0038, 0.6075, 0.6817, 0.0601],
                            [0.6446, -0.2500, 0.5376, -0.2226, 0.2333]])
lab_test = fb.linear_quantize(test_tensor, 2)
print(lab_test.codes)
assert np.array_equal(lab_test.codes, linear_quantize(test_tensor, 2, 1 / 3, -1).numpy())

# %% [markdown]
# ## Exercise 2. Scale and zero point
#
# r_max = S (q_max − Z) minus r_min = S (q_min − Z) gives S = (r_max − r_min) / (q_max − q_min), and Z is round(q_min
# − r_min / S). q_max − q_min is 2ᵇ − 1.

# %%
quantized_min, quantized_max = -2, 1
fp_max, fp_min = W.max().item(), W.min().item()
scale = (fp_max - fp_min) / (quantized_max - quantized_min)
zero_point = round(quantized_min - fp_min / scale)
S, Z = fb.scale_and_zero_point(W, 2)
print(table(["", "slide", "the lab's lines", "fewbits"], [["S", 1.07, scale, float(S)], ["Z", -1, zero_point, int(Z)]]))
assert (round(scale, 2), zero_point) == (1.07, -1)
assert np.isclose(scale, float(S))
assert zero_point == int(Z)

# %% [markdown]
# A range that does not hold 0 gives a Z outside of the codes: numbers from 1 to 2 want Z = −383 in 8 bits. `fewbits`
# widens the range to 0 first (so does PyTorch); `include_zero=False` clips Z, as the lab's code does.

# %%
far = np.linspace(1.0, 2.0, 5)
print("the formula alone: Z =", round(-128 - 1.0 / (1.0 / 255)))
for include in (True, False):
    q = fb.linear_quantize(far, 8, include_zero=include)
    print(f"include_zero={include}: Z = {int(q.encoding.zero_point)}, largest error {q.error(far).largest:.4f}")
assert fb.linear_quantize(far, 8).error(far).largest < 0.005

# %% [markdown]
# Per channel: a scale for each output channel costs four bytes a channel and takes the small rows out of the shadow
# of the large ones.

# %%
rows = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 0, 8).reshape(-1, 1)
blocks = {block: fb.linear_quantize(rows, 4, symmetric=True, block=block) for block in ("tensor", "channel")}
relative = {block: [float(np.sqrt(np.square(q.dequantize()[row] - rows[row].numpy()).mean()) / rows[row].std())
                    for row in range(8)] for block, q in blocks.items()}
assert max(relative["channel"]) < 0.2 < max(relative["tensor"])
plots.bars("Error of each row, in its standard deviation, 4 bits", plots.Axis(""), [f"row {row}" for row in range(8)],
           [(f"per {block}", values) for block, values in relative.items()])

# %% [markdown]
# ## Exercise 3. A fully connected layer
#
# With Z_W = 0, Z_b = 0 and S_b = S_W S_X: q_Y = S_W S_X / S_Y · (q_W q_X + q_bias) + Z_Y, where q_bias = q_b − Z_X Σ
# q_W. (The slide has "Z_X q_W"; it is the sum over the layer's inputs.) q_b and q_bias are of 32 bits.

# %%
generator = torch.Generator().manual_seed(1)
x, weight = torch.rand(4, 8, generator=generator), torch.randn(3, 8, generator=generator)
bias = torch.randn(3, generator=generator)
y = F.linear(x, weight, bias)
q_x = fb.linear_quantize(x, 8)
q_w = fb.linear_quantize(weight, 8, symmetric=True, block="channel")
output = fb.linear_quantize(y, 8).encoding
layer = fb.quantized_linear(q_x, q_w, bias, output)


def quantized_linear(codes, q_weight, q_bias, input_scale, weight_scale, output_scale, output_zero_point):
    """The lab's lines around its integer product."""
    product = torch.tensor(codes).double() @ torch.tensor(q_weight).double().T + torch.tensor(q_bias)
    product = product * (input_scale * weight_scale / output_scale).reshape(1, -1)
    product = product + output_zero_point
    return product.round().clamp(-128, 127).to(torch.int8)


lab_codes = quantized_linear(q_x.codes, q_w.codes, layer.q_bias, torch.tensor(q_x.encoding.scale),
                             torch.tensor(q_w.encoding.scale), torch.tensor(output.scale), int(output.zero_point))
print("q_b   ", layer.bias, "\nq_bias", layer.q_bias, "\ncodes\n", layer.codes, sep="")
print(f"largest error {np.abs(layer.dequantize() - y.numpy()).max():.4f}, a step is {float(output.scale):.4f}")
assert np.array_equal(lab_codes.numpy(), layer.codes)
assert np.array_equal(layer.bias - int(q_x.encoding.zero_point) * q_w.codes.astype(int).sum(1), layer.q_bias)

# %% [markdown]
# ## Exercise 4. A convolution
#
# The same two steps. q_bias = q_b − Conv(q_W, Z_X) holds where the input is padded with Z_X, the code of 0; padded
# with the integer 0, the border is wrong:

# %%
picture = np.array([[0.0, 0.2, 0.4], [0.6, 0.8, 1.0], [0.1, 0.3, 0.5]])
kernel = np.array([[0.5, -0.25], [0.75, -1.0]])
q_picture = fb.linear_quantize(picture[None, None], 8)
q_kernel = fb.linear_quantize(kernel[None, None], 8, symmetric=True)
exact = F.conv2d(torch.tensor(picture)[None, None], torch.tensor(kernel)[None, None], torch.tensor([0.1]).double(),
                 padding=1)
to = fb.linear_quantize(exact, 8).encoding
right = fb.quantized_conv2d(q_picture, q_kernel, [0.1], to, padding=1)
padded = np.pad(q_picture.codes[0, 0], 1)  # with the integer 0
wrong = fb.quantized_conv2d(type(q_picture)(padded[None, None], q_picture.encoding), q_kernel, [0.1], to)
errors = {"padded with Z_X": np.abs(right.dequantize() - exact.numpy()).max(),
          "padded with 0": np.abs(wrong.dequantize() - exact.numpy()).max()}
print(table(["", "largest error"], list(errors.items())))
assert errors["padded with Z_X"] < 2 * float(to.scale) < 0.5 < errors["padded with 0"]
plots.matrices("A 2×2 convolution of a 3×3 picture, padded",
               [("exact", exact[0, 0]), ("integers", right.dequantize()[0, 0]),
                ("wrong padding", wrong.dequantize()[0, 0])])

# %% [markdown]
# ## Batch norm goes into the convolution before it
#
# Evaluated, batch norm is a product and a sum per channel: w' = w · γ / √(σ² + ε), b' = (b − μ) · γ / √(σ² + ε) + β.

# %%
conv, norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
for _ in range(20):
    norm(conv(torch.randn(16, 2, 6, 6, generator=generator)))
norm.eval()
folded = fb.fold_batch_norm(conv, norm)
probe = torch.randn(4, 2, 6, 6, generator=generator)
difference = float((folded(probe) - norm(conv(probe))).detach().abs().max())
print(f"largest difference {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## Exercise 5. Inference with the quantized model
#
# The lab quotes Jacob et al. 2018 on ImageNet: ResNet-50 76.4 → 74.9 %, Inception-V3 78.4 → 75.4 %. (Its figure of
# latency on a Snapdragon 835 is lost, and the phone is not here.) A small network in integers, each layer as in
# exercises 3 and 4:

# %%
source = fb.data_set(data)
normalize, size = source.normalize, source.train.x.shape[-1]


class Net(nn.Module):
    """A small network with batch norm."""

    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 24, 3, padding=1, stride=2), nn.BatchNorm2d(24)
        self.fc = nn.Linear(24 * ((size + 1) // 2) ** 2, 10)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.fc(torch.flatten(x, 1))


torch.manual_seed(0)
net = Net()
train = source.train.batches(32, normalize, torch.Generator().manual_seed(0))
fb.fit(net, train, epochs=epochs, optimizer=fb.Adam(3e-3), quiet=True)
net.eval()
test, calibration = source.test.batches(256, normalize), list(source.calibration.inputs(64, normalize))


def accuracy(model) -> float:
    """In % of the test images."""
    return 100 * fb.evaluate(model, test).mean


program = fb.quantize(net, calibration[0], calibration, recipe="w8a8")
seen = fb.compare(net, program, test)
print(table(["network", "float, %", "8-bit integers, %"],
            [["ResNet-50, ImageNet (document)", 76.4, 74.9], ["Inception-V3, ImageNet (document)", 78.4, 75.4],
             [f"small network, {data}", 100 * seen.float_accuracy.mean, 100 * seen.accuracy.mean]]))
print(f"signal to noise of the logits {seen.sqnr:.1f} dB, {seen.flips} of {seen.samples} classes changed")
assert seen.sqnr > 25

# %% [markdown]
# ## Exercise 6. K-means quantization
#
# `n_clusters = 2**bitwidth`; a codebook of centroids and a label for each weight; decoded by `centroids[labels]`.

# %%
codebook = fb.kmeans_quantize(W, 2)
quantized_tensor = codebook.centroids[codebook.labels]
print("centroids", codebook.centroids, "\nlabels\n", codebook.labels, sep="")
assert np.allclose(quantized_tensor, [[2, -1, 1.5, 0], [0, 0, -1, 2], [-1, 2, 0, -1], [2, 0, 1.5, 1.5]])
assert np.array_equal(codebook.decode(), quantized_tensor)


def shared(model, bits):
    """A copy whose weights are those of a codebook for each layer, and the codebooks."""
    other, books = copy.deepcopy(model), {}
    with torch.no_grad():
        for name, layer in other.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                books[name] = fb.kmeans_quantize(layer.weight, bits)
                layer.weight.copy_(torch.tensor(books[name].decode()))
    return other.eval(), books


networks = {bits: shared(net, bits) for bits in (4, 3, 2)}
by_kmeans = {bits: accuracy(other) for bits, (other, _) in networks.items()}
weights = net.fc.weight.detach()
two_bits = networks[2][1]["fc"]
plots.histogram("Weights of the last layer, and the four values that 2 bits share", weights,
                marks=[(float(c), f"{c:.2f}") for c in two_bits.centroids])

# %% [markdown]
# ## Exercise 7. Fine-tuning
#
# After each pass of training the weights have moved; with the labels kept, each centroid becomes the mean of its
# members: `codebook.centroids[k] = torch.mean(fp32_tensor[codebook.labels == k])`. (That is simpler than Deep
# Compression's sum of gradients, `Codebook.step`.)

# %%
moved = W - 0.1 * torch.sin(10 * W)
by_hand = [float(moved[torch.tensor(codebook.labels) == k].mean()) for k in range(4)]
print("centroids", codebook.centroids, "→", codebook.refresh(moved).centroids)
assert np.allclose(codebook.refresh(moved).centroids, by_hand, atol=1e-7)


def tuned(model, books):
    """Trained, its weights back on refreshed codebooks after each epoch."""
    model = copy.deepcopy(model)
    for _ in range(tuning_epochs):
        fb.fit(model, train, epochs=1, optimizer=fb.Adam(1e-3), quiet=True)
        with torch.no_grad():
            for name, book in books.items():
                layer = model.get_submodule(name)
                layer.weight.copy_(torch.tensor(book.refresh(layer.weight).decode()))
    return accuracy(model.eval())


after = {bits: tuned(*networks[bits]) for bits in networks}
print(table(["bits", "k-means, %", "fine-tuned, %"], [["float", accuracy(net), None],
                                                      *([bits, by_kmeans[bits], after[bits]] for bits in networks)]))
assert all(len(np.unique(networks[bits][1]["fc"].decode())) <= 2**bits for bits in networks)
plots.bars("Shared weights", plots.Axis("accuracy, %"), [f"{bits} bits" for bits in networks],
           [("k-means", list(by_kmeans.values())), ("fine-tuned", list(after.values()))])

# %% [markdown]
# ## PyTorch's own
#
# The last two slides are of the PyTorch API, and their body is lost. Today's is torchao's: export, `prepare_pt2e`
# (or `prepare_qat_pt2e`), run the data, `convert_pt2e`. Beside it, the same network here. PyTorch's fake
# quantization rounds before it adds Z, as the lab does, but `quantize_per_tensor` adds Z first: with ties and an odd
# Z the two differ.

# %%
ties = torch.tensor([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25])
fake = torch.fake_quantize_per_tensor_affine(ties, 0.5, 1, -128, 127) / 0.5 + 1
here = fb.linear_quantize(ties, 8, scale=0.5, zero_point=1).codes
real = torch.round(ties / 0.5 + 1)
print(table(["x", "fewbits", "fake_quantize", "round(x / S + Z)"], list(zip(ties, here, fake, real, strict=True))))
assert here.tolist() == fake.tolist() == [-1, -1, 1, 1, 3, 3]
assert real.tolist() == [-2, 0, 0, 2, 2, 4]

# %%
logging.getLogger("torchao").setLevel(logging.ERROR)  # of kernels for other machines
try:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
except ImportError:
    x86 = None
    print("torchao is not installed: pip install torchao")


def by_torchao(training: bool):
    """PTQ, or QAT of as many epochs as above, in torchao."""
    example = (calibration[0],)
    dynamic = ({0: torch.export.Dim("batch", min=2, max=4096)},)
    exported = torch.export.export(copy.deepcopy(net).train(training), example, dynamic_shapes=dynamic).module()
    quantizer = x86.X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config(is_qat=training))
    if training:
        prepared = prepare_qat_pt2e(exported, quantizer)
        optimizer = torch.optim.Adam(prepared.parameters(), 1e-3)
        for _ in range(tuning_epochs):
            for inputs, labels in train:
                optimizer.zero_grad()
                F.cross_entropy(prepared(inputs), labels).backward()
                optimizer.step()
    else:
        prepared = prepare_pt2e(exported, quantizer)
        for inputs in calibration:
            prepared(inputs)
    return convert_pt2e(prepared)


def score(model) -> tuple[float, float]:
    """Accuracy in %, and signal to noise in dB where the float network is the same."""
    right, signal, noise = 0, 0.0, 0.0
    with torch.no_grad():
        for inputs, labels in test:
            got, wanted = model(inputs), net(inputs)
            right += int((got.argmax(1) == labels).sum())
            signal, noise = signal + float((wanted**2).sum()), noise + float(((got - wanted) ** 2).sum())
    return 100 * right / len(source.test), 10 * float(np.log10(signal / noise))


model = fb.fold(fb.capture(net, calibration[0]), norms="keep")  # batch norm stays live in training
sim = fb.trainable(fb.calibrate(model, fb.plan(model, "qat-w8a8"), calibration))
fb.fit(sim, train, epochs=tuning_epochs, optimizer=fb.Adam(1e-3), quiet=True)
learned = fb.lower(fb.calibrate_activations(sim, calibration))
scores = {"PTQ, fewbits": score(program), "QAT, fewbits": score(learned)}
if x86 is not None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores |= {"PTQ, torchao": score(by_torchao(False)), "QAT, torchao": score(by_torchao(True))}
print(table(["8 bits", "accuracy, %", "signal to noise, dB"],
            [[name, found[0], found[1] if name.startswith("PTQ") else None] for name, found in sorted(scores.items())]))
plots.bars("8 bits, here and in torchao", plots.Axis("accuracy, %"), sorted(scores),
           [("accuracy", [scores[name][0] for name in sorted(scores)])])
