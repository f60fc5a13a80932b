"""Products of matrices under their other names, as linear layers where one factor is a weight, else as matmul."""

import math
from typing import Any

import torch
from torch import nn

from fewbits.fold.draft import Draft
from fewbits.graph.graph import Node, Param, Ref, Shape

aten = torch.ops.aten


def with_parameter(draft: Draft, node: Node) -> bool:
    """x @ W with a parameter W [K, O] is a linear layer with Wᵀ."""
    other = node["other"]
    if not isinstance(other, Param) or len(draft.shape(other)) != 2 or not isinstance(node["self"], Ref):
        return False
    weight = draft.model.tensor(other.name).detach().T.contiguous()
    draft.emit(node, node.name, aten.linear.default,
               {"input": node["self"], "weight": draft.parameter(f"{node.name}.columns", nn.Parameter(weight)),
                "bias": None}, node.shape)
    return True


def added(draft: Draft, node: Node) -> bool:
    """beta · self + alpha · first @ second: a linear layer where second is a parameter and self its bias."""
    first, second = (node[name] for name in (("mat1", "mat2") if "mat1" in node.arguments else ("batch1", "batch2")))
    bias, alpha, beta = node["self"], node["alpha"], node["beta"]
    if isinstance(first, Ref) and isinstance(second, Param) and isinstance(bias, Param) and len(
            draft.shape(second)) == 2 and len(draft.shape(bias)) == 1:
        weight = alpha * draft.model.tensor(second.name).detach().T.contiguous()
        kept = bias if beta == 1 else draft.parameter(f"{node.name}.bias",
                                                      nn.Parameter(beta * draft.model.tensor(bias.name).detach()))
        name = draft.parameter(f"{node.name}.columns", nn.Parameter(weight))
        draft.emit(node, node.name, aten.linear.default, {"input": first, "weight": name, "bias": kept}, node.shape)
        return True
    if not isinstance(first, Ref):
        return False
    product: Any = draft.emit(node, f"{node.name}.product", aten.matmul.default, {"self": first, "other": second},
                              node.shape)
    product, bias = (_times(draft, node, item, factor) for item, factor in ((product, alpha), (bias, beta)))
    draft.emit(node, node.name, aten.add.Tensor, {"self": product, "other": bias, "alpha": 1}, node.shape)
    return True


def _times(draft: Draft, node: Node, value: Any, factor: float) -> Any:
    if factor == 1:
        return value
    if isinstance(value, Param):
        return draft.parameter(f"{node.name}.scaled", factor * draft.model.tensor(value.name).detach())
    return draft.emit(node, draft.fresh(f"{node.name}.scaled"), aten.mul.Tensor, {"self": value, "other": factor},
                      draft.shape(value))


def with_alpha(draft: Draft, node: Node) -> bool:
    """self ± alpha · other."""
    if node.arguments.get("alpha", 1) == 1 or not isinstance(node["other"], Ref | Param) or node.dtype != "float32":
        return False
    other = _times(draft, node, node["other"], node["alpha"])
    draft.emit(node, node.name, node.target, {"self": node["self"], "other": other, "alpha": 1}, node.shape)
    return True


def linear(draft: Draft, node: Node) -> bool:
    """A linear layer whose weight the model computes: a product of two of its values."""
    if isinstance(node["weight"], Param):
        return False
    shape = draft.shape(node["weight"])
    if len(shape) != 2:
        return False
    columns = draft.emit(node, f"{node.name}.columns", aten.transpose.int,
                         {"self": node["weight"], "dim0": 0, "dim1": 1}, shape[::-1])
    name = node.name if node["bias"] is None else f"{node.name}.product"
    product = draft.emit(node, name, aten.matmul.default, {"self": node["input"], "other": columns}, node.shape)
    if node["bias"] is not None:
        draft.emit(node, node.name, aten.add.Tensor, {"self": product, "other": node["bias"], "alpha": 1}, node.shape)
    return True


def einsum(draft: Draft, node: Node) -> bool:
    """Two operands, each letter once in each: the axes that both have and the result keeps, those that are summed, and
    those of one alone, as one product of matrices."""
    equation, operands = node["equation"].replace(" ", ""), list(node["tensors"])
    terms, _, result = equation.partition("->")
    letters = terms.split(",")
    if not result or len(operands) != 2 or len(letters) != 2 or not all(map(str.isalpha, (*letters, result))):
        return False
    first, second = letters
    if any(len(set(term)) != len(term) for term in (first, second, result)):
        return False
    shared = [x for x in result if x in first and x in second]
    summed = [x for x in first if x in second and x not in result]
    rows = [x for x in result if x in first and x not in second]
    columns = [x for x in result if x in second and x not in first]
    if len(shared) + len(summed) + len(rows) != len(first) or len(shared) + len(summed) + len(columns) != len(second):
        return False  # an axis summed alone
    sizes: dict[str, int | None] = {}
    for term, operand in zip(letters, operands, strict=True):
        for letter, size in zip(term, draft.shape(operand), strict=True):
            sizes[letter] = size
    moving = {letter for letter, size in sizes.items() if size is None}
    if len(moving) > 1 or not moving <= {*shared, *rows}:
        return False
    a = _as_matrices(draft, node, "first", operands[0], first, (shared, rows, summed), sizes)
    b = _as_matrices(draft, node, "second", operands[1], second, (shared, summed, columns), sizes)
    flat = (*(sizes[x] for x in shared), _size(sizes, rows), _size(sizes, columns))
    product = draft.emit(node, draft.fresh(f"{node.name}.product"), aten.matmul.default, {"self": a, "other": b}, flat)
    order = [*shared, *rows, *columns]
    apart = tuple(sizes[x] for x in order)
    if apart != flat:
        product = _reshape(draft, node, product, apart)
    if order == list(result):
        draft.renamed[node.name] = product.name
        return True
    draft.emit(node, node.name, aten.permute.default, {"self": product, "dims": [order.index(x) for x in result]},
               node.shape)
    return True


def _size(sizes: dict[str, int | None], letters: list[str]) -> int | None:
    known = [size for letter in letters if (size := sizes[letter]) is not None]
    return math.prod(known) if len(known) == len(letters) else None


def _as_matrices(draft: Draft, node: Node, word: str, operand: Any, term: str, groups: tuple[list[str], ...],
                 sizes: dict[str, int | None]) -> Any:
    """Its axes in the order of the groups, the last two groups flattened to one axis each."""
    shared, one, two = groups
    order = [*shared, *one, *two]
    shape = (*(sizes[x] for x in shared), _size(sizes, one), _size(sizes, two))
    turned = [term.index(x) for x in order]
    if isinstance(operand, Param):
        made = draft.model.tensor(operand.name).detach().permute(turned).reshape([size or 0 for size in shape])
        return draft.parameter(f"{node.name}.{word}", made.contiguous())
    if turned != sorted(turned):
        operand = draft.emit(node, draft.fresh(f"{node.name}.{word}"), aten.permute.default,
                             {"self": operand, "dims": turned}, tuple(sizes[x] for x in order))
    return operand if draft.shape(operand) == shape else _reshape(draft, node, operand, shape)


def _reshape(draft: Draft, node: Node, value: Any, shape: Shape) -> Ref:
    return draft.emit(node, draft.fresh(f"{node.name}.reshaped"), aten.reshape.default,
                      {"self": value, "shape": [-1 if size is None else size for size in shape]}, shape)
