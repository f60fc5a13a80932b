"""Networks that another tool has quantized, or prepared for it: no start for quantizing again."""

from torch import nn
from torch.fx import GraphModule

_OPERATORS = ("quantized_decomposed", "quantized", "torchao")  # namespaces of quantized operators
_FROM_FILES = tuple(f"torch.ops.{namespace}." for namespace in _OPERATORS)
_MODULES = (("torch.ao.nn.quantized", "is quantized"), ("torch.ao.nn.quantizable", "is quantized"),
            ("torch.ao.nn.intrinsic.quantized", "is quantized"), ("torch.ao.nn.sparse.quantized", "is quantized"),
            ("torch.ao.nn.qat", "is prepared for quantization"),
            ("torch.ao.nn.intrinsic.qat", "is prepared for quantization"),
            ("torch.ao.quantization.observer", "is prepared for quantization"),
            ("torch.ao.quantization.fake_quantize", "is prepared for quantization"),
            ("torchao.quantization.pt2e", "is prepared for quantization"))


def quantized_elsewhere(module: nn.Module) -> str:
    """How another tool left a module, as `is quantized by torch.ao`; "" for one that is neither."""
    where = type(module).__module__
    for package, what in _MODULES:
        if where == package or where.startswith(f"{package}."):
            return f"{what} by {'torchao' if package.startswith('torchao') else 'torch.ao'}"
    if any(type(tensor).__module__.startswith("torchao.") for tensor in (*module._parameters.values(),
                                                                         *module._buffers.values())):
        return "is quantized by torchao"
    if isinstance(module, GraphModule):
        for node in module.graph.nodes:
            name = str(getattr(node.target, "_schema", node.target) if node.op == "call_function" else "")
            if name.split("::")[0] in _OPERATORS:
                return "is quantized by PT2E (torchao)"
    return ""


def quantized_operator(name: str) -> bool:
    """Whether an operator that a .pt2 file names, such as `torch.ops.aten.relu.default`, is of a quantized network."""
    return name.startswith(_FROM_FILES)
