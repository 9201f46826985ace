"""A pre-norm Transformer: RMSNorm, rotary positions, grouped-query attention, SwiGLU. No parallelism in it.

Zhang & Sennrich, "Root Mean Square Layer Normalization" (2019); Su et al., "RoFormer" (2021); Ainslie et al., "GQA" (2023);
Shazeer, "GLU Variants Improve Transformer" (2020). Shapes: B rows, T positions, H query heads, G key-value heads, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from kernels.attention import attention
from kernels.linear_cross_entropy import LinearCrossEntropy, linear_cross_entropy
from kernels.norm import add_rms_norm, rms_norm
from kernels.rope import rope
from kernels.swiglu import swiglu
from training.config import ModelConfig
from training.packing import block_mask, dense_mask, document_starts, positions_in_documents

INITIAL_STD = 0.02  # Radford et al., "Language Models are Unsupervised Multitask Learners" (2019)


class Transformer(nn.Module):
    """Token ids to logits over the next token, or to the loss of given ones.

    Its arithmetic is the operators of `kernels`: fused on CUDA, plain torch elsewhere.

    Initial weights: normal with deviation 0.02; the projections back into the residual stream 0.02 / sqrt(2 layers), so that
    the stream's variance does not grow with depth; norms one. Drawn on the CPU from `initialise(seed)`: equal everywhere.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.vocabulary > 0
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = RMSNorm(config)
        self.head = None if config.tied else nn.Linear(config.d_model, config.vocabulary, bias=False)

    def initialise(self, seed: int) -> Transformer:
        """Draw the initial weights. Same seed, same weights, on every device and in every process."""
        generator = torch.Generator().manual_seed(seed)
        residual = INITIAL_STD / math.sqrt(2 * self.config.layers)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if parameter.ndim < 2:
                    parameter.fill_(1.0)
                    continue
                std = residual if name.endswith(("attention.out.weight", "feed_forward.down.weight")) else INITIAL_STD
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        return self

    @overload
    def forward(self, tokens: Tensor, documents: Tensor | None = ..., cache: KeyValueCache | None = ...) -> Tensor: ...
    @overload
    def forward(
        self, tokens: Tensor, documents: Tensor | None = ..., *, targets: Tensor, scale: float = ...
    ) -> LinearCrossEntropy: ...
    def forward(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        cache: KeyValueCache | None = None,
        targets: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor | LinearCrossEntropy:
        """Logits (B, T, vocabulary) of what follows each position; with targets (B, T) int64 the loss of those, without logits.

        tokens: (B, T) ids. documents: (B, T) integers, constant within a document; positions restart with each, and none
        attends to another. None: each row is one document. cache: earlier positions of the rows; T more are added to it.
        The loss is the sum of the token losses, times `scale`.
        """
        assert documents is None or cache is None, "a cache continues one document per row"
        stream, update = self.embedding(tokens), None
        context = self._context(tokens, documents, cache)
        for layer, block in enumerate(self.blocks):
            stream, update = block(stream, update, context, cache.layers[layer] if cache is not None else None)
        if cache is not None:
            cache.length += tokens.shape[1]
        x, _ = self.norm(stream, update)
        output = self.embedding.weight if self.head is None else self.head.weight
        if targets is None:
            return F.linear(x, output)
        return linear_cross_entropy(x, output, targets, documents=documents, reduction="sum", scale=scale)

    def _context(self, tokens: Tensor, documents: Tensor | None, cache: KeyValueCache | None) -> Context:
        if documents is not None:
            positions = positions_in_documents(documents)
            chosen = self.config.attention
            if chosen == "auto":
                fits = self.config.head_dim % 8 == 0 and self.config.head_dim <= 256  # what the fused kernel takes
                chosen = "fused" if tokens.is_cuda and fits else "sdpa"
            masks = {"fused": document_starts, "flex": block_mask, "sdpa": dense_mask}
            return Context(*self._rotation(positions), masks[chosen](documents), past=0)
        past = cache.length if cache is not None else 0
        positions = torch.arange(past, past + tokens.shape[1], device=tokens.device)[None]
        return Context(*self._rotation(positions), None, past=past)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, (B or 1, T, D / 2), in float32 whatever the autocast."""
        width = self.config.head_dim
        frequency = self.config.rope_theta ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width)
        angle = positions[..., None].float() * frequency
        return angle.cos(), angle.sin()


@dataclass(frozen=True)
class Context:
    """What all blocks share in a forward pass: rotation, mask, positions already in the cache.

    mask: None (causal over the row), where each token's document starts (B, T) int32, FlexAttention's, or (B, 1, T, T) bool.
    """

    cos: Tensor
    sin: Tensor
    mask: Any
    past: int


class KeyValueCache:
    """Keys and values of the positions that a generation has passed. `layers`: (keys, values), each (B, G, capacity, D)."""

    def __init__(self, config: ModelConfig, rows: int, capacity: int, like: Tensor) -> None:
        shape = (rows, config.key_value_heads, capacity, config.head_dim)
        self.layers = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(config.layers)]
        self.length = 0


class RMSNorm(nn.Module):
    """Adds an update to the residual stream and normalises the sum: one pass over memory for both."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(config.d_model))
        self.eps = config.norm_eps

    def forward(self, stream: Tensor, update: Tensor | None) -> tuple[Tensor, Tensor]:
        """(normalised, new stream). update: what the last layer adds to the stream, in any precision; None: nothing."""
        if update is None:
            return rms_norm(stream, self.weight, eps=self.eps), stream
        return add_rms_norm(update, stream, self.weight, eps=self.eps)


class Block(nn.Module):
    """Attention, then the feed-forward. What the latter adds to the stream is left to the next norm to add."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = RMSNorm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self, stream: Tensor, update: Tensor | None, context: Context, cache: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        x, stream = self.attention_norm(stream, update)
        x, stream = self.feed_forward_norm(stream, self.attention(x, context, cache))
        return stream, self.feed_forward(x)


class Attention(nn.Module):
    """Causal grouped-query attention with rotary positions; H / G query heads share each key-value head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        keys = config.key_value_heads * config.head_dim
        self.query = nn.Linear(config.d_model, config.d_model, bias=False)
        self.key = nn.Linear(config.d_model, keys, bias=False)
        self.value = nn.Linear(config.d_model, keys, bias=False)
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, context: Context, cache: tuple[Tensor, Tensor] | None = None) -> Tensor:
        rows, length, _ = x.shape
        heads = (rows, length, -1, self.config.head_dim)
        q, k, v = (project(x).view(heads).transpose(1, 2) for project in (self.query, self.key, self.value))
        q, k = rope(q, k, context.cos, context.sin)
        if cache is not None:
            k, v = _append(cache, k, v, context.past)
        out = self._attend(q, k, v, context)
        return self.out(out.transpose(1, 2).reshape(rows, length, -1))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, context: Context) -> Tensor:
        grouped = self.config.key_value_heads != self.config.heads
        if context.mask is None:
            if context.past and q.shape[2] > 1:
                seen = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(context.past)
                return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=grouped)
            return F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1, enable_gqa=grouped)
        if isinstance(context.mask, Tensor) and context.mask.dtype == torch.int32:
            return attention(q, k, v, document_starts=context.mask)
        if isinstance(context.mask, Tensor):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask, enable_gqa=grouped)
        # Only its compiled form is fused; inside a compiled block it is part of the block's graph.
        attend = _compiled_flex() if q.is_cuda and not torch.compiler.is_compiling() else flex_attention
        return attend(q, k, v, block_mask=context.mask, enable_gqa=grouped)


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.hidden, bias=False)
        self.up = nn.Linear(config.d_model, config.hidden, bias=False)
        self.down = nn.Linear(config.hidden, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(swiglu(self.gate(x), self.up(x)))


def _append(cache: tuple[Tensor, Tensor], k: Tensor, v: Tensor, past: int) -> tuple[Tensor, Tensor]:
    stop = past + k.shape[2]
    for kept, new in zip(cache, (k, v), strict=True):
        kept[:, :, past:stop] = new
    return cache[0][:, :, :stop], cache[1][:, :, :stop]


@lru_cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention, dynamic=False)
