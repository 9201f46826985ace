"""One training step of GPT-2 124M in plain torch and with this project's operators: what `kernels_gpt2.py` times.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): 12 blocks, 12 heads, width 768, vocabulary 50304
(padded), 1024 positions, LayerNorm with bias, GELU, tied output. float32 weights, bfloat16 products by autocast, AdamW,
gradients clipped at 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.attention import attention
from kernels.gelu import gelu
from kernels.linear_cross_entropy import linear_cross_entropy
from kernels.norm import add_layer_norm, layer_norm

LAYERS, HEADS, WIDTH, VOCABULARY, LENGTH = 12, 12, 768, 50304, 1024


class Block(nn.Module):
    """own_attention: this project's kernel; otherwise torch's scaled dot product."""

    def __init__(self, own_attention: bool) -> None:
        super().__init__()
        self.own_attention = own_attention
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def attend(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, HEADS, WIDTH // HEADS).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.own_attention:
            y = attention(q, k, v, deterministic=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(batch, length, WIDTH)

    def plain(self, x: Tensor) -> Tensor:
        x = x + self.out(self.attend(self.norm1(x)))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    def fused(self, y: Tensor, x: Tensor, after: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """y: the normalised stream x. Returns the next layer's. `after`: the norm that follows this block.

        A projection's bias is added, and its gradient summed, by the norm that follows; the GELU's bias by the GELU.
        """
        h = F.linear(self.attend(y), self.out.weight)
        y, x = add_layer_norm(h, x, self.norm2.weight, self.norm2.bias, x_bias=self.out.bias)
        h = F.linear(gelu(F.linear(y, self.up.weight), self.up.bias), self.down.weight)
        return add_layer_norm(h, x, after.weight, after.bias, x_bias=self.down.bias)


class GPT2(nn.Module):
    """fused: with this project's operators. stream: dtype of the residual stream. own_attention: attention too."""

    def __init__(self, fused: bool, stream: torch.dtype = torch.float32, own_attention: bool = False) -> None:
        super().__init__()
        self.fused, self.stream = fused, stream
        self.run: Callable[..., tuple[Tensor, Tensor]] = Block.fused
        self.tokens, self.positions = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(own_attention) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        x = (self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]).to(self.stream)
        return self._fused(x, targets) if self.fused else self._plain(x, targets)

    def _plain(self, x: Tensor, targets: Tensor) -> Tensor:
        for block in self.blocks:
            x = block.plain(x)  # type: ignore[operator]
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def _fused(self, x: Tensor, targets: Tensor) -> Tensor:
        norms: list[Any] = [block.norm1 for block in self.blocks] + [self.norm]
        y = layer_norm(x, norms[0].weight, norms[0].bias)
        for block, after in zip(self.blocks, norms[1:], strict=True):
            y, x = self.run(block, y, x, after)
        # Larger chunks than the default's: a gigabyte more is nothing here.
        return linear_cross_entropy(y, self.tokens.weight, targets, chunk=16384).loss


def training_step(model: GPT2) -> Callable[[Tensor, Tensor], Tensor]:
    """A compiled step of `model`: forward, backward, clipping, AdamW. Returns the loss, on the device.

    Plain torch is compiled whole, so that it fuses what it can; the fused model block by block, which compiles once for all.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
    if model.fused:
        model.run = torch.compile(Block.fused)
    compiled = model if model.fused else torch.compile(model)

    def step(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            loss = compiled(tokens, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def training_operations(tokens: int) -> float:
    """6 per token and matrix weight, and attention's causal half."""
    matrices = LAYERS * 12 * WIDTH**2 + WIDTH * VOCABULARY
    return tokens * (6.0 * matrices + 6.0 * LAYERS * WIDTH * LENGTH)
