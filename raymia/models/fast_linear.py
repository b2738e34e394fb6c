"""Linear layers in float32 that use all of an AMD CPU's vector units.

PyTorch gives such products to MKL, which runs AVX2 code on processors that are not Intel's. oneDNN,
which PyTorch brings along for convolutions, has AVX-512 code for both: on a Zen 5 core a product is
more than twice as fast with it. The sums differ in their order alone; of two rows or more, a row's
sums are the same to the bit whatever the other rows are, and however many.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

MIN_WEIGHTS = 2**14
"""Layers of fewer weights are left to MKL: oneDNN's start takes longer than their products."""

Tensor = torch.Tensor


def use_fast_linears(model: nn.Module) -> None:
    """Give a model's linear layers the forward pass of this module.

    They stay what they were in all else: weights, and what adapters find and replace.
    """
    for module in model.modules():
        kind = FAST.get(type(module))
        if kind is not None:
            module.__class__ = kind


@cache
def gains_by_onednn() -> bool:
    """Whether this is a machine without a GPU whose CPU has AVX-512 and is AMD's."""
    cpu: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return (
        not torch.cuda.is_available()
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and str(cpu.get("cpu_name", "")).startswith("AMD")
    )


class FastLinear(nn.Linear):
    """A linear layer whose products are oneDNN's."""

    def forward(self, input: Tensor) -> Tensor:
        if _is_worthwhile(input, self.weight):
            return _linear(input, self.weight, self.bias)
        return super().forward(input)


class FastConv1D(Conv1D):  # type: ignore[misc]
    """GPT-2's linear layer, whose weights are [in, out]."""

    def forward(self, x: Tensor) -> Tensor:
        if _is_worthwhile(x, self.weight):
            return _linear(x, self.weight.t(), self.bias)
        result: Tensor = super().forward(x)
        return result


FAST: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: FastLinear, Conv1D: FastConv1D}


def linear(given: Tensor, weight: Tensor) -> Tensor:
    """``given @ weight.T`` of float32, as a linear layer of this machine computes it."""
    if weight.device.type == "cpu" and gains_by_onednn() and _is_worthwhile(given, weight):
        return _product(given, weight)
    return nn.functional.linear(given, weight)


def _is_worthwhile(given: Tensor, weight: Tensor) -> bool:
    # Not by the number of rows: an answer would depend on how many others are in its batch.
    return given.dtype == weight.dtype == torch.float32 and weight.numel() >= MIN_WEIGHTS


def _linear(given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if torch.is_grad_enabled():
        result: Tensor = _WithGradients.apply(given, weight, bias)  # type: ignore[no-untyped-call]
        return result
    return _product(given, weight, bias)


def _product(given: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``given @ weight.T + bias``, for weights [out, in]."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(given, weight, bias, "none", [], "")
    return result


class _WithGradients(torch.autograd.Function):
    """The product, and its gradients, which are products too."""

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(given, weight)
        return _product(given, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        given, weight = ctx.saved_tensors
        for_given, for_weight, for_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if for_given else None,
            _product(rows.t(), given.flatten(0, -2).t()) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )
