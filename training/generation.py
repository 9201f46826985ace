"""Text from a trained model: one token after the other, from the model's probabilities."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from training.model import KeyValueCache, Transformer
from training.weights import load_trained


def generate(
    folder: str | Path,
    prompt: str,
    tokens: int = 200,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    use_cache: bool = True,
) -> str:
    """The prompt, and how the model of a finished run goes on from it.

    tokens: at most so many; the end-of-text token ends the text before. temperature 0 takes the likeliest token. top_k: draw
    from the likeliest k only (0: all). top_p: draw from the fewest tokens that together are at least so likely. Same seed,
    same text, on one device. use_cache: keep keys and values; without, the same text comes slower. ValueError for settings
    out of range.
    """
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1 or tokens < 0:
        raise ValueError("generate takes temperature >= 0, top_k >= 0, 0 < top_p <= 1 and tokens >= 0")
    from tokenizers import Tokenizer

    place = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else device if device != "auto" else "cpu")
    trained = load_trained(folder, place)
    tokenizer = Tokenizer.from_file(str(trained.tokenizer))
    given = [trained.eos, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    drawn = Sampler(trained.model, trained.seq_len, temperature, top_k, top_p, seed, use_cache).extend(
        given, tokens, trained.eos
    )
    return prompt + tokenizer.decode(drawn, skip_special_tokens=True)


class Sampler:
    """Draws tokens from a model. Where the text outgrows the sequences that the model was trained on, it goes on from the
    last half of one."""

    def __init__(
        self, model: Transformer, seq_len: int, temperature: float, top_k: int, top_p: float, seed: int, use_cache: bool = True
    ) -> None:
        self.model, self.seq_len, self.use_cache = model, seq_len, use_cache
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.device = model.embedding.weight.device
        self.generator = torch.Generator(self.device).manual_seed(seed)

    @torch.inference_mode()
    def extend(self, given: list[int], count: int, eos: int) -> list[int]:
        """At most `count` tokens that follow `given`, up to the end-of-text token, which is left out."""
        context, drawn = self._recent(given), []
        cache = self._cache()
        unread = context
        while len(drawn) < count:
            if len(context) > self.seq_len:
                context = self._recent(context)
                unread, cache = context, self._cache()
            tokens = torch.tensor([unread if cache is not None else context], device=self.device)
            token = self.draw(self.model(tokens, cache=cache)[0, -1].float())
            if token == eos:
                break
            drawn.append(token)
            context, unread = [*context, token], [token]
        return drawn

    def draw(self, logits: Tensor) -> int:
        """One token from logits (vocabulary,)."""
        if self.temperature == 0:
            return int(logits.argmax())
        ordered, tokens = (logits / self.temperature).sort(descending=True, stable=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        allowed = before < self.top_p  # the likeliest token always is
        if self.top_k:
            allowed[self.top_k :] = False
        chosen = torch.multinomial(probabilities * allowed, 1, generator=self.generator)
        return int(tokens[chosen])

    def _recent(self, tokens: list[int]) -> list[int]:
        return tokens if len(tokens) <= self.seq_len else tokens[-max(self.seq_len // 2, 1) :]

    def _cache(self) -> KeyValueCache | None:
        return KeyValueCache(self.model.config, 1, self.seq_len, self.model.embedding.weight) if self.use_cache else None
