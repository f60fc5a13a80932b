# %% [markdown]
# # EECE695D: what a number costs, and how to have fewer of them
#
# The lecture "Efficient ML Systems: Quantization" goes from number formats over shared weights (k-means) to linear
# quantization and integer dot products. Here is each of its examples, computed; each number stands beside the one
# that is printed, and where the two differ it says which is right. Everything is a public function of `fewbits`.

# %%
import numpy as np
import torch
from torch import nn

import fewbits as fb

plots, table = fb.plots, fb.plots.table

# %% [markdown]
# Settings: `fewbits lab eece695d --set draws=100` takes the lecture's number of random roundings.

# %% tags=["parameters"]
data = "digits"  # or mnist:DIR
epochs = 12
draws = 20

# %% [markdown]
# ## 1. What quantization is, and what it saves
#
# Quantization maps numbers of a large set to numbers of a small one, so that each takes fewer bits: 32 to 16, 8, 4.
# (The slide lists FP32 among the small sets. That is right only for the way from the real numbers to FP32.) Four
# things get cheaper: arithmetic, bandwidth, storage and silicon. The lecture's table of energy and area, 45 nm at
# 0.9 V:

# %%
costs = fb.costs()


def ratio(operation: str, unit: str) -> float:
    """How many times FP32 costs what INT8 does."""
    int8, fp32 = (costs.operations[f"{operation} {kind}"] for kind in ("int8", "fp32"))
    return fp32.pJ[0] / int8.pJ[0] if unit == "pJ" else fp32.um2 / int8.um2


rows = [[f"{operation}, {unit}", *(costs.operations[f"{operation} {kind}"].pJ[0] if unit == "pJ" else
                                   costs.operations[f"{operation} {kind}"].um2 for kind in ("int8", "fp32")),
         ratio(operation, unit), printed]
        for operation, unit, printed in (("add", "pJ", "30X"), ("multiply", "pJ", "18.5X"), ("add", "um2", "116X"),
                                         ("multiply", "um2", "27X"))]
print(table(["", "INT8", "FP32", "ratio", "lecture"], rows))
print(table(["64 bits from", "pJ"], [[name, f"{low:g}" if low == high else f"{low:g} to {high:g}"]
                                     for name, low, high in ((n, *cost.pJ) for n, cost in costs.access.items())]))
assert [round(row[3], 1) for row in rows] == [30.0, 18.5, 116.2, 27.3]
plots.bars("Energy of one operation, 45 nm", plots.Axis("pJ", logarithmic=True), list(costs.operations),
           [("pJ", [cost.pJ[0] for cost in costs.operations.values()])])

# %% [markdown]
# Bytes from DRAM cost a thousand additions. A weight of 8 bits instead of 32 is a quarter of them: the "up to 4X" of
# the slide.
#
# ## 2. Integers
#
# n bits count from 0 to 2ⁿ − 1 (the slide lost the minus). With a sign bit and a magnitude they reach from −(2ⁿ⁻¹ −
# 1) to 2ⁿ⁻¹ − 1, with two zeros: the slide's "−2ⁿ⁻¹ − 1" cannot be. Two's complement spends the second zero on
# −2ⁿ⁻¹.

# %%
integers = {}
for bits in (2, 4, 8):
    kinds = {kind: fb.parse(f"{name}{bits}").values() for kind, name in
             (("unsigned", "uint"), ("sign_magnitude", "sm"), ("twos_complement", "int"))}
    integers[str(bits)] = {kind: [int(values[0]), int(values[-1])] for kind, values in kinds.items()}
    assert [len(values) for values in kinds.values()] == [2**bits, 2**bits - 1, 2**bits]
print(table(["bits", "unsigned", "sign and magnitude", "two's complement"],
            [[bits, *(f"{low} to {high}" for low, high in found.values())] for bits, found in integers.items()]))
assert integers["4"] == {"unsigned": [0, 15], "sign_magnitude": [-7, 7], "twos_complement": [-8, 7]}
four = np.arange(16)
decoded = [[f"{code:04b}", code, int(fb.parse("sm4").decode(np.array([code], np.uint8))[0]), (code ^ 8) - 8]
           for code in four]
print(table(["code", "unsigned", "sign and magnitude", "two's complement"], decoded))
assert decoded[8] == ["1000", 8, 0, -8]

# %% [markdown]
# ## 3. Fixed point and floating point
#
# Fixed point is an integer whose last bits stand behind the point: Q4.4 is an 8-bit integer in steps of 2⁻⁴.

# %%
q44 = fb.dynamic_fixed_point([3.0625, -8.0, 7.9375, 0.03], bits=8, fraction=4)
print(table(["real", "code", "number"], list(zip([3.0625, -8.0, 7.9375, 0.03], q44.codes, q44.dequantize(),
                                                 strict=True))))
assert f"{q44.codes[0]:08b}" == "00110001"

# %% [markdown]
# A float moves its point: the exponent gives the range, the fraction the precision. The lecture's example is
# 0.265625 = 1.0625 · 2⁻² = (1 + 0.0625) · 2¹²⁵⁻¹²⁷:

# %%
example = fb.float_fields("fp32", 0.265625)
print(example)
assert (example.sign, example.exponent, example.fraction / 2**23, example.code) == (0, 125, 0.0625, 0x3E880000)

# %% [markdown]
# BF16 is FP32 with 16 bits of the fraction cut off, TF32 has FP32's exponent and FP16's fraction. "Identical
# underflow, overflow" holds for the exponent: the largest BF16 is 0.4 % below the largest FP32, and its subnormal
# numbers end 16 bits earlier.

# %%
formats = {name: fb.parse(name) for name in ("fp32", "tf32", "bf16", "fp16", "e5m2", "e4m3")}
print(table(["format", "bits", "exponent", "fraction", "largest", "smallest normal", "smallest above 0", "step at 1"],
            [[name, f.bits, f.exponent_bits, f.mantissa_bits, f.largest, f.smallest_normal, f.smallest,
              2.0**-f.mantissa_bits] for name, f in formats.items()]))
assert formats["bf16"].largest == 3.3895313892515355e38
assert formats["tf32"].bits == 19
x = np.geomspace(2.0**-20, 2.0**20, 400)
plots.points("Relative distance to the nearest number", plots.Axis("x", logarithmic=True),
             plots.Axis("|error| / x", logarithmic=True),
             [plots.Series(name, x, np.abs(formats[name].nearest(x) - x) / x) for name in ("bf16", "fp16", "e4m3")])

# %% [markdown]
# The usual multiply-accumulate of BF16 multiplies in bfloat16 and adds in FP32: the fraction is short, and a long
# sum needs more of it than a product. 4096 products, added in both ways:

# %%
generator = torch.Generator().manual_seed(0)
a, b = (torch.rand(4096, generator=generator).bfloat16() for _ in range(2))
exact = float((a.double() * b.double()).sum())
in_bf16 = torch.zeros((), dtype=torch.bfloat16)
for product in a * b:
    in_bf16 = in_bf16 + product
in_fp32 = float((a.float() * b.float()).sum())
print(table(["accumulator", "sum", "error, %"], [["exact", exact, 0.0],
                                                 ["fp32", in_fp32, 100 * abs(in_fp32 - exact) / exact],
                                                 ["bf16", float(in_bf16), 100 * abs(float(in_bf16) - exact) / exact]]))
assert abs(in_fp32 - exact) / exact < 1e-6 < 0.1 < abs(float(in_bf16) - exact) / exact

# %% [markdown]
# The sum in BF16 stops growing where a product is less than half a step of it. (Throughput of an A100 as the lecture
# has it: FP32 1×, TF32 8×, FP16 and BF16 16×. No such card is needed here, so it is only quoted.)
#
# ## 4. K-means: few values, any values
#
# Sixteen weights, four shared values: minimise (1/n) Σᵢ minⱼ (xᵢ − cⱼ)². (The slide writes c_k under a minimum over
# j.)

# %%
W = np.array([[2.09, -0.98, 1.48, 0.09], [0.05, -0.14, -1.08, 2.12], [-0.91, 1.92, 0.0, -1.03],
              [1.87, 0.0, 1.53, 1.49]])
book = fb.kmeans_quantize(W, bits=2)
print("centroids", book.centroids)
print("index of each weight\n", book.labels, sep="")
print("error of the sum of squares", round(book.error(W), 6))
lecture = np.array([[2, -1, 1.5, 0], [0, 0, -1, 2], [-1, 2, 0, -1], [2, 0, 1.5, 1.5]])
assert np.array_equal(book.decode().round(2), lecture)
assert book.centroids[1] == 0.0, "exactly"
plots.matrices("K-means of the lecture's weights", [("32 bits each", W), ("an index of 2 bits into 4 values",
                                                                          book.decode())])

# %% [markdown]
# Stored are an index of 2 bits for each weight and a codebook of four floats: 16 · 2 + 4 · 32 = 160 bits instead of
# 512, the lecture's 3.2×.

# %%
stored = W.size * 2 + 4 * 32
print(f"{W.size * 32} bits / {stored} bits = {W.size * 32 / stored}")
assert W.size * 32 / stored == 3.2

# %% [markdown]
# Lloyd's iteration finds the optimum or not, as it begins; `kmeans_quantize` alone gives the optimum of all
# clusterings (dynamic programming, as the numbers lie on a line).

# %%
starts = {start: fb.kmeans_quantize(W, 2, start=start, seed=seed) for start, seed in
          (("optimal", 0), ("linear", 0), ("density", 0), ("k-means++", 0), ("random", 3))}
print(table(["start", "centroids", "sum of squares"],
            [[name, "  ".join(f"{c:.2f}" for c in found.centroids), found.error(W)] for name, found in starts.items()]))
assert min(found.error(W) for found in starts.values()) == starts["optimal"].error(W)
worst = max(fb.kmeans_quantize(W, 2, start="random", seed=seed).error(W) for seed in range(50))
print(f"the worst of 50 random starts: {worst:.4f}")
assert worst > 10 * book.error(W)

# %% [markdown]
# Trained further, each shared value moves by the sum of its members' gradients. (The figure's gradients are not in
# the text; these are those of the paper's figure, as far as memory has them.)

# %%
gradient = np.array([[-0.03, -0.01, 0.03, 0.02], [-0.01, 0.01, -0.02, 0.12], [-0.01, 0.02, 0.04, 0.01],
                     [-0.07, -0.02, 0.01, -0.02]])
moved = book.step(gradient, rate=1.0)
print("centroids", book.centroids.round(2), "→", moved.centroids.round(2))
assert np.allclose(moved.centroids, [-0.97, -0.04, 1.48, 1.96])

# %% [markdown]
# The limitation stands: the values are any real numbers, so they are stored in few bits and multiplied as floats.
#
# ## 5. Linear quantization: r = S (q − Z)

# %%
S, Z = fb.scale_and_zero_point(W, bits=2)
affine = fb.linear_quantize(W, bits=2)
print(table(["", "lecture", "here"], [["S", 1.07, float(S)], ["Z", -1, int(Z)]]))
print("codes\n", affine.codes, sep="")
print("error:", affine.error(W))
assert affine.codes.tolist() == [[1, -2, 0, -1], [-1, -1, -2, 1], [-2, 1, -1, -2], [1, -1, 0, 0]]
assert round(float(S), 2) == 1.07
plots.matrices("Linear quantization to 2 bits", [("weights", W), ("codes", affine.codes),
                                                 ("S (q − Z)", affine.dequantize())])

# %% [markdown]
# S is (2.12 + 1.08) / 3 = 1.0667, printed as 1.07. With the printed S the reconstruction is the printed one (2.14
# and −1.07), with the exact S it is 2.1333 and −1.0667; the codes are the same. The line for Z must read round(−2 −
# (−1.08) / 1.07) = round(−0.99) = −1; the slide has "−2 − 1/1". The real 0 has the code Z, exactly: zeros stay
# zeros, in weights that were pruned, behind a ReLU and in padding.

# %%
printed = fb.linear_quantize(W, bits=2, scale=1.07, zero_point=-1)
assert np.array_equal(printed.dequantize().round(2)[0], np.float32([2.14, -1.07, 1.07, 0]))
assert np.array_equal(printed.codes, affine.codes)
assert (affine.dequantize()[W == 0] == 0).all()
by_bits = {bits: fb.linear_quantize(W, bits).error(W).mse for bits in range(2, 9)}
shared = {bits: fb.kmeans_quantize(W, bits).error(W) / W.size for bits in (2, 3)}
print(table(["bits", "linear, mean squared error", "k-means"],
            [[bits, error, shared.get(bits)] for bits, error in by_bits.items()]))
assert shared[2] < by_bits[2]
plots.points("Error of the 4×4 example", plots.Axis("bits"), plots.Axis("mean squared error", logarithmic=True),
             [plots.Series("linear", list(by_bits), list(by_bits.values()), line=True),
              plots.Series("k-means", list(shared), list(shared.values()), line=True)])

# %% [markdown]
# More error than k-means at the same bits, and yet the one that hardware likes: S stays outside of the sums.
#
# ## 6. Does it matter how one rounds?
#
# q = clip(round(r / S) + Z). The lecture quotes AdaRound's table: the first layer of ResNet-18 in 4 bits on
# ImageNet, the layer rounded to nearest, up, down, and at random 100 times. ImageNet is not here; the same study on
# a small network with the same question:

# %%
source = fb.data_set(data)
normalize = source.normalize


class SmallNet(nn.Module):
    """Two convolutions and a linear layer."""

    def __init__(self, size: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 12, 3, padding=1), nn.Conv2d(12, 16, 3, padding=1, stride=2)
        self.fc = nn.Linear(16 * ((size + 1) // 2) ** 2, 10)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        return self.fc(torch.flatten(torch.relu(self.conv2(x)), 1))


torch.manual_seed(0)
net = SmallNet(source.train.x.shape[-1])
fb.fit(net, source.train.batches(32, normalize, torch.Generator().manual_seed(0)), epochs=epochs,
       optimizer=fb.Adam(3e-3), quiet=True)
net.eval()
test = source.test.batches(256, normalize)
calibration = list(source.calibration.inputs(64, normalize))
labelled = source.calibration.batches(64, normalize)
float_accuracy = 100 * fb.evaluate(net, test).mean
model = fb.fold(fb.capture(net, calibration[0]))
print(f"float: {float_accuracy:.2f} % of {len(source.test)} test images")

# %% [markdown]
# As in the paper it is the first layer that is rounded; the others have 8 bits, to nearest. At 4 bits per layer,
# nearest loses little on so easy a task, so the study is of 2 bits too: the shape of the lecture's table appears
# where the error is large.

# %%
def accuracy_of(sim) -> float:
    return 100 * fb.evaluate(sim, test).mean


def accuracy_to_choose(sim) -> float:
    return 100 * fb.evaluate(sim, labelled).mean


studies, eight_bits = {}, fb.recipe("w8")
for bits in (4, 2):
    recipe = eight_bits.model_validate(eight_bits.model_dump() | {"rules": [
        {"layer": "first", "weights": {"format": f"int{bits}", "block": "tensor"}}]})
    sim = fb.calibrate(model, fb.plan(model, recipe), calibration)
    studies[bits] = fb.rounding_study(sim, calibration, accuracy_of, choose=accuracy_to_choose, which=["conv1"],
                                      draws=draws)
document = {"nearest": "52.29", "ceil": "0.10", "floor": "0.10", "stochastic": "52.06 ± 5.52"}
print(table(["rounding", "lecture: ResNet-18, 4 bits", "here, 4 bits", "here, 2 bits"],
            [[four.way, document.get(four.way, "63.06 (best of 100)" if four.way.startswith("best") else "–"),
              str(four).split(": ")[1], str(two).split(": ")[1]] for four, two in zip(*studies.values(), strict=True)]))
by_way = {row.way: row.mean for row in studies[2]}
assert by_way["nearest"] > max(by_way["ceil"], by_way["floor"])
plots.bars("First layer rounded: accuracy", plots.Axis("%"), [row.way for row in studies[4]],
           [(f"{bits} bits", [row.mean for row in rows]) for bits, rows in studies.items()],
           spread=[[row.deviation for row in rows] for rows in studies.values()])

# %% [markdown]
# Up and down alone shift every weight the same way, and the outputs with it; at random the shifts cancel, and some
# draws beat rounding to nearest. AdaRound, the last row, chooses each weight's direction by what it does to the
# layer's output. The best of the draws is chosen on calibration images here, and scored on the test images like all
# others.
#
# ## 7. Integer dot products
#
# With W = S_W (q_W − Z_W) and X = S_X (q_X − Z_X) the product has four terms: S_Y (q_Y − Z_Y) = S_W S_X (q_W·q_X −
# Z_X Σ q_W − Z_W Σ q_X + n Z_W Z_X). (In the slide the transposes are missing in the first line, and the formula for
# q_Y lacks its last rounding and clipping.)

# %%
w, v = np.array([[0.6, -1.2, 0.3, 0.9]]), np.array([[1.0, 0.25, -0.5, 2.0]])
q_w, q_v = fb.linear_quantize(w, 8), fb.linear_quantize(v, 8)
output = fb.linear_quantize([[-3.0, 3.0]], 8).encoding
product = fb.quantized_linear(q_v, q_w, None, output)
terms = product.terms
print(table(["term", "integers"], [["Σ q_W q_X", int(terms.products.item())],
                                   ["− Z_W Σ q_X", -int(terms.of_weight_zero.item())],
                                   ["− Z_X Σ q_W", -int(terms.of_input_zero.item())],
                                   ["+ Σ Z_W Z_X", int(terms.of_both.item())],
                                   ["accumulator, int32", int(product.accumulator.item())]]))
print(f"exact {(w @ v.T).item():.4f}, in integers {product.dequantize().item():.4f} (code {product.codes.item()})")
assert product.accumulator.item() == int(((q_w.codes.astype(int) - int(q_w.encoding.zero_point))
                                          * (q_v.codes.astype(int) - int(q_v.encoding.zero_point))).sum())

# %% [markdown]
# Symmetric weights have Z_W = 0: two terms are left, and the one with Z_X is known before any input arrives.

# %%
symmetric = fb.quantized_linear(q_v, fb.linear_quantize(w, 8, symmetric=True), None, output)
assert not symmetric.terms.of_weight_zero.any()
assert not symmetric.terms.of_both.any()
assert symmetric.terms.products + symmetric.q_bias == symmetric.accumulator
print(f"q_bias = −Z_X Σ q_W = {symmetric.q_bias.item()}, computed once")

# %% [markdown]
# ## 8. Symmetric ranges: which scale?
#
# Tools disagree about the scale of a symmetric range, and so do the lectures. Full range, max / 2ᴺ⁻¹, clips the
# largest number by one step; restricted range, max / (2ᴺ⁻¹ − 1), gives the lowest code away. The slide attributes
# the full range to "ONNX, PyTorch": PyTorch in fact computes max / 127.5, and ONNX Runtime restricts its int8
# weights.

# %%
conventions = {name: fb.scale_and_zero_point(W, 8, symmetric=True, convention=name)[0] for name in
               ("full", "restricted", "torch")}
print(table(["convention", "scale of the 4×4 example, 8 bits", "largest number it has"],
            [[name, float(scale), float(scale) * 127] for name, scale in conventions.items()], digits=8))
assert np.isclose(conventions["full"], 2.12 / 128)
assert np.isclose(conventions["restricted"], 2.12 / 127)
assert np.isclose(conventions["torch"], 2.12 / 127.5)

# %% [markdown]
# Behind a ReLU a symmetric range gives half of its codes to numbers that never come:

# %%
positive = np.maximum(np.random.default_rng(0).normal(size=2000), 0)
wasted = {name: fb.linear_quantize(positive, 4, symmetric=symmetric, signed=symmetric) for name, symmetric in
          (("symmetric, int4", True), ("asymmetric, uint4", False))}
print(table(["range", "codes in use of 16", "mean squared error"],
            [[name, len(np.unique(q.codes)), q.error(positive).mse] for name, q in wasted.items()]))
assert len(np.unique(wasted["symmetric, int4"].codes)) == 8
x = np.linspace(-0.5, 3.5, 801)
plots.points("Two grids of 4 bits behind a ReLU", plots.Axis("x"), plots.Axis("Q(x)"),
             [plots.Series(name, x, q.encoding.encode(x).dequantize(), line=True) for name, q in wasted.items()],
             key="left")
