"""A causal model's output layer: what enters it, and what is asked of its logits."""

from __future__ import annotations

import importlib.util
import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import cache
from typing import Any

import torch
from torch import nn

from raymia.models.causal.fold import After, Columns, Fold, TorchFold
from raymia.models.causal.tiles import Tile, tile_of, whole_rows
from raymia.models.fast_linear import FastLinear, linear

LOG = logging.getLogger(__name__)
HEAD_TOLERANCE = 1e-6
"""Relative; both ways run the same operations, so a real difference is larger."""
PROBED = 8
"""Tokens by which it is found out what a model does after its output layer."""
TRIED_COLUMNS = 512
"""Of the vocabulary, for choosing among what may be done."""
MATRICES = (nn.Linear, FastLinear)
"""Layers that are a matrix and a bias and nothing else, so that a part of the rows is enough."""

Tensor = torch.Tensor


class Head:
    """Hidden states first, then tiles of [tokens x vocabulary].

    What enters the output layer is taken where it enters it, from the model's own forward pass,
    so adapters and architectures may do before it whatever they do. What a model does with the
    products afterwards (nothing, one factor, a cap) is found out by trying the numbers of its
    config.

    Attributes
    ----------
    takes : what the model's forward pass can be given, by name.
    after : what follows the output layer; None where it is nothing of these. Such a model is asked
        for its logits.
    """

    def __init__(self, model: Any) -> None:
        self._put_on(model)
        self.lanes = 1
        self.takes = frozenset(inspect.signature(self.body.forward).parameters)
        self.after = None if self.output is None else self._what_follows()

    def of_twin(self, model: Any, lanes: int) -> Head:
        """That of a copy of the model, one of several that share what tiles may take."""
        other = copy(self)
        other._put_on(model)
        other.lanes = lanes
        return other

    def _put_on(self, model: Any) -> None:
        self.model = model
        self.body = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.output = self.body.get_output_embeddings()

    def hidden(self, mask: Tensor, **inputs: Any) -> Tensor:
        """What enters the output layer [batch, length, width]; the logits themselves where it is
        not known what follows.

        Parameters
        ----------
        mask : [batch, length]; longer by the cached positions where ``past_key_values`` is given.
        inputs : ``input_ids``, and whatever else the model takes.
        """
        return self.output_of(mask, **inputs)[0]

    def keeping(self, cache: Any) -> dict[str, Any]:
        """What tells a model to go on from a cache, and to add to it."""
        name = "cache" if "cache" in self.takes else "past_key_values"
        return {name: cache, "use_cache": True}

    def output_of(self, mask: Tensor, **inputs: Any) -> tuple[Tensor, Any]:
        """What :meth:`hidden` returns, and the model's own output."""
        given = inputs["input_ids"]
        asked = {"attention_mask": mask, "use_cache": False, **inputs}
        if self.after is None:
            output = self.model(**asked)
            states = output.logits
        else:
            with _taken(self.output) as entering:
                output = self.model(**asked)
            states = entering[-1]
        # Adapters that prepend virtual tokens run the output layer on these too.
        return states[:, -given.shape[1] :], output

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits of hidden states, float32 [..., vocabulary]."""
        if self.after is None:
            return hidden.float()
        return self.after.of(self.output(hidden).float())

    def log_probs(self, hidden: Tensor, labels: Tensor, moments: bool) -> Columns:
        """Log-probability of each label, and the moments where asked for.

        Parameters
        ----------
        hidden : [tokens, width], of the tokens that are scored.
        labels : int64 [tokens].
        """
        after = self.after or After()
        fold = fold_for(hidden.device)
        tile = self._tile(hidden, fold.copies)
        count = len(labels)
        # Filled in place: small results that are kept between the tiles would keep the allocator
        # from using the memory of one tile for the next.
        kinds = [torch.float32] * 3 + [torch.bool] if moments else [torch.float32]
        kept = [hidden.new_empty(count, dtype=kind) for kind in kinds]
        for start in range(0, count, tile.rows):
            part = slice(start, start + tile.rows)
            answers = fold(labels[part], after, moments=moments)
            self._add_tiles(answers, hidden[part], tile.columns)
            found = answers.columns()
            for column, answer in zip(
                kept, (found.log_prob, found.mean, found.std, found.is_top1), strict=False
            ):
                assert answer is not None
                column[part] = answer
        return Columns(*kept)

    def _add_tiles(self, fold: Fold, hidden: Tensor, columns: int) -> None:
        """Give a fold all columns of some tokens."""
        layer = _in_effect(self.output)
        matrix = None if self.after is None else _matrix_of(layer)
        if self.after is None:
            fold.add(hidden.to(torch.float32, copy=True), None, 0)
        elif matrix is None or (columns >= len(matrix) and matrix.dtype == torch.float32):
            fold.add(self.output(hidden).float(), None, 0)
        else:
            bias = layer.bias
            for start in range(0, len(matrix), columns):
                part = slice(start, start + columns)
                products = product(hidden, matrix[part])
                fold.add(products, None if bias is None else bias[part], start)

    def _tile(self, hidden: Tensor, copies: int) -> Tile:
        device = hidden.device.type
        matrix = None if self.after is None else _matrix_of(_in_effect(self.output))
        if matrix is None:
            vocabulary = self.body.config.get_text_config().vocab_size
            return whole_rows(device, vocabulary, self.lanes)
        vocabulary, width = matrix.shape
        return tile_of(device, vocabulary, width, matrix.itemsize, copies=copies, lanes=self.lanes)

    @torch.inference_mode()
    def _what_follows(self) -> After | None:
        """Find out what this model does after its output layer, by what it says of a few tokens."""
        device = self.model.get_input_embeddings().weight.device
        config = self.body.config.get_text_config()
        ids = torch.arange(PROBED, device=device)[None] % config.vocab_size
        asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
        try:
            with _taken(self.output) as entering:
                self.model(**asked)
            products = self.output(entering[-1])
        except (TypeError, RuntimeError, AttributeError, IndexError):
            return None
        theirs = self.model(**asked).logits
        if products.shape != theirs.shape:
            return None
        if _gap(products, theirs, After()) == 0:
            return After()
        few = products[..., :TRIED_COLUMNS], theirs[..., :TRIED_COLUMNS]
        best = min(_candidates(config), key=lambda after: _gap(*few, after))
        return best if _gap(products, theirs, best) <= HEAD_TOLERANCE else None


def _in_effect(layer: Any) -> Any:
    """The layer that answers within what an adapter wraps it in; the wrapper itself where the
    adapter adds to what the layer says."""
    active = (
        () if getattr(layer, "disable_adapters", False) else getattr(layer, "active_adapters", ())
    )
    if hasattr(layer, "modules_to_save"):
        own = [name for name in active if name in layer.modules_to_save]
        return layer.modules_to_save[own[0]] if own else layer.original_module
    if hasattr(layer, "base_layer"):
        parts = [getattr(layer, name) for name in layer.adapter_layer_names]
        adds = layer.merged or any(name in part for part in parts for name in active)
        return layer if adds else layer.base_layer
    return layer


def _matrix_of(layer: Any) -> Tensor | None:
    """An output layer's weights [vocabulary, width]; None where it is not only a matrix."""
    plain = type(layer) in MATRICES and "forward" not in vars(layer)
    return layer.weight if plain else None


@contextmanager
def _taken(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Keep what enters a layer in the list, and do not run the layer."""
    entering: list[Tensor] = []

    def take(states: Tensor, *_: Any, **__: Any) -> Tensor:
        entering.append(states)
        return states[..., :1]

    before = vars(layer).get("forward")
    layer.forward = take
    try:
        yield entering
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before


def _candidates(config: Any) -> Iterator[After]:
    """What may follow: nothing, or one number of the config as a factor, a divisor, or a cap."""
    yield After()
    numbers = {
        float(value)
        for value in config.to_dict().values()
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    }
    for number in sorted(numbers - {1.0}):
        yield After("multiply", number)
        yield After("divide", number)
        yield After("cap", number)


def _gap(products: Tensor, theirs: Tensor, after: After) -> float:
    """Relative difference, in the model's precision or in float32, as models do either."""
    scale = theirs.float().abs().max().clamp_min(1)
    gaps = (
        (after.of(given).float() - theirs.float()).abs().max() / scale
        for given in (products, products.float())
    )
    found = [float(gap) for gap in gaps]
    finite = [gap for gap in found if gap == gap]
    return min(finite, default=float("inf"))


def product(hidden: Tensor, matrix: Tensor) -> Tensor:
    """``hidden @ matrix.T`` in float32 from its first sum on, whatever the precision of the two."""
    if matrix.dtype == torch.float32:
        return linear(hidden.float(), matrix)
    if matrix.device.type == "cuda":
        return torch.mm(hidden.to(matrix.dtype), matrix.t(), out_dtype=torch.float32)
    return linear(hidden.float(), matrix.float())


def fold_for(device: torch.device) -> type[TorchFold] | type[Any]:
    """The fastest fold that there is for a device."""
    return (_triton_fold() if device.type == "cuda" else None) or TorchFold


@cache
def _triton_fold() -> type[Any] | None:
    """The Triton kernel, where it runs; it takes Triton and a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return None
    from raymia.models.causal.fold_triton import TritonFold

    labels = torch.zeros(1, dtype=torch.int64, device="cuda")
    try:
        fold = TritonFold(labels, After(), moments=True)
        fold.add(torch.zeros((1, 2), device="cuda"), None, 0)
        fold.columns()
    except Exception as error:  # whatever a compiler raises
        LOG.warning("Triton's kernels do not run here (%s): torch's are used, slower", error)
        return None
    return TritonFold
