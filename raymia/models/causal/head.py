"""A causal model's output layer, asked for a few positions at a time."""

from __future__ import annotations

from typing import Any

import torch

from raymia.models.causal.memory import HEAD_CHUNK_BYTES

HEAD_TOLERANCE = 1e-6
"""Relative; both ways run the same operations, so a real difference is larger."""


class Head:
    """Hidden states first, then the vocabulary in chunks of positions."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.body = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.output = self.body.get_output_embeddings()
        self.chunked = self.output is not None and self._agrees()

    def hidden(self, mask: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Last hidden states [batch, length, width]; the logits themselves where the model's head
        is more than one linear map.

        Parameters
        ----------
        mask : [batch, length]; longer by the cached positions where ``past_key_values`` is given.
        inputs : ``input_ids`` or ``inputs_embeds``, and whatever else the model takes.
        """
        states: torch.Tensor = self.output_of(mask, **inputs)[0]
        given = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"]
        # Adapters that prepend virtual tokens return logits for these too.
        return states[:, -given.shape[1] :]

    def output_of(self, mask: torch.Tensor, **inputs: Any) -> Any:
        """The model's own output, whose first entry is what :meth:`hidden` returns."""
        model = self.body.base_model if self.chunked else self.model
        return model(attention_mask=mask, **{"use_cache": False, **inputs})

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states, float32 [..., vocabulary]."""
        return (self.output(hidden) if self.chunked else hidden).float()

    def log_probs(
        self, hidden: torch.Tensor, labels: torch.Tensor, moments: bool
    ) -> tuple[torch.Tensor | None, ...]:
        """Log-probability of each label, and the moments where asked for; all float32 [tokens]."""
        vocabulary = self.body.config.get_text_config().vocab_size
        rows = max(1, HEAD_CHUNK_BYTES // (4 * vocabulary))
        # Filled in place: small results that are kept between the chunks would keep the allocator
        # from using the memory of one chunk for the next.
        count = len(labels)
        columns = [hidden.new_empty(count, dtype=torch.float32) for _ in range(3 * moments or 1)]
        if moments:
            columns.append(hidden.new_empty(count, dtype=torch.bool))
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            logits = self.logits(hidden[part])
            for column, answer in zip(
                columns, _answers(logits, labels[part], moments), strict=True
            ):
                column[part] = answer
        return tuple(columns) if moments else (*columns, None, None, None)

    @torch.inference_mode()
    def _agrees(self) -> bool:
        """Check that hidden states times the output matrix are this model's logits.

        They are not where an architecture scales or caps its logits, or where a PEFT method adds
        inputs of its own (prefixes, prompts); such a model is asked for its logits instead.
        """
        device = self.model.get_input_embeddings().weight.device
        vocabulary = self.body.config.get_text_config().vocab_size
        ids = torch.arange(8, device=device)[None] % vocabulary
        mask = torch.ones_like(ids)
        try:
            states = self.body.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
            ours = self.output(states).float()
        except (TypeError, RuntimeError, AttributeError):
            return False
        theirs = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
        if ours.shape != theirs.shape:
            return False
        return bool((ours - theirs).abs().max() <= HEAD_TOLERANCE * theirs.abs().max().clamp_min(1))


def _answers(logits: torch.Tensor, label: torch.Tensor, moments: bool) -> tuple[torch.Tensor, ...]:
    """Log-probability and, where asked for, mean and standard deviation of log p and top-1 flag.

    The logits are overwritten: the vocabulary is large and each pass over it is slow.
    """
    top = logits.max(-1, keepdim=True)
    shifted = logits.sub_(top.values)  # log p + log_z
    labelled = shifted.gather(-1, label[:, None])[:, 0]
    # A token of probability 0 adds nothing: 0 * -inf is 0 here, not NaN.
    weights = shifted.clamp_min_(-1e30).exp()
    z = weights.sum(-1)
    log_z = z.log()
    if not moments:
        return (labelled - log_z,)
    average = torch.linalg.vecdot(weights, shifted) / z
    deviation = shifted.sub_(average[:, None])
    variance = torch.linalg.vecdot(weights.mul_(deviation), deviation) / z
    return labelled - log_z, average - log_z, variance.sqrt(), top.indices[:, 0] == label
