"""Text to token ids and back to a file: a byte-level BPE trained here, or any tokenizer.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.shards import token_dtype

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "[EOS]", "<|eos|>")
"""End-of-text tokens of published tokenizers, which a tokenizer.json holds but does not point out."""
BYTES = 256
_BATCH_CHARACTERS = 1 << 20  # encoded at a time: bounds memory, and is enough work for every thread


def train_bpe(texts: Iterable[str], vocabulary: int, eos: str = END_OF_TEXT) -> bytes:
    """A byte-level BPE (GPT-2's) as the bytes of a tokenizer.json; `eos` has id 0.

    A function of the texts alone: neither their order nor the number of threads matters. Small texts may give fewer than
    `vocabulary` tokens. ValueError if the vocabulary is too small for 256 bytes and the end-of-text token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocabulary <= BYTES:
        raise ValueError(f"a vocabulary of {vocabulary} tokens is too small: {BYTES} bytes and {eos} need {BYTES + 1}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[eos],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str().encode()


class DocumentTokenizer:
    """Encodes documents with a tokenizer.json, each followed by the end-of-text token, which no text can contain.

    vocabulary: ids are below it. eos, eos_token: the end-of-text token. sha256: of the file. ValueError if the file is no
    tokenizer, or if its end-of-text token is neither named by `eos` nor one of KNOWN_ENDS.
    """

    def __init__(self, path: str | Path, eos: str | None = None) -> None:
        self.path = Path(path)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the tokenizer {path}: {error.strerror}") from error
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._tokenizer = _parse(content, str(path))
        self.eos_token = eos if eos is not None else _find_end(self._tokenizer, str(path))
        found = self._tokenizer.token_to_id(self.eos_token)
        if found is None:
            raise ValueError(f"{path} has no token {self.eos_token}; its special tokens are {_specials(self._tokenizer)}")
        self.eos: int = found
        self._tokenizer.add_special_tokens([self.eos_token])  # some files list it as an ordinary token
        self._tokenizer.encode_special_tokens = True  # a page that spells out <|endoftext|> is no end of text
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.vocabulary = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        self.dtype = token_dtype(self.vocabulary)

    def encode(self, texts: Iterable[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Tokens of all documents, and the length of each with its end-of-text token, as (tokens,) and (documents,).

        ValueError if the tokenizer makes the end-of-text token out of ordinary text.
        """
        end = np.array([self.eos], self.dtype)
        parts: list[npt.NDArray[Any]] = []
        lengths: list[int] = []
        for batch in _batches(texts):
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids = np.array(encoding.ids, self.dtype)
                parts += (ids, end)
                lengths.append(len(ids) + 1)
        tokens = np.concatenate(parts) if parts else np.empty(0, self.dtype)
        if np.count_nonzero(tokens == self.eos) != len(lengths):
            raise ValueError(f"{self.path} makes {self.eos_token} out of ordinary text: name another end-of-text token (eos)")
        return tokens, np.array(lengths, np.int64)

    def decode(self, tokens: Sequence[int] | npt.NDArray[Any]) -> str:
        """Text of token ids, special tokens left out."""
        return self._tokenizer.decode([int(t) for t in tokens], skip_special_tokens=True)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _parse(content: bytes, where: str) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises bare Exceptions
        raise ValueError(f"{where} is no tokenizer.json: {error}") from error


def _specials(tokenizer: Tokenizer) -> str:
    added = tokenizer.get_added_tokens_decoder()
    return ", ".join(added[i].content for i in sorted(added)) or "none"


def _find_end(tokenizer: Tokenizer, where: str) -> str:
    found = [token for token in KNOWN_ENDS if tokenizer.token_to_id(token) is not None]
    if len(found) == 1:
        return found[0]
    told = f"could end a text with any of {', '.join(found)}" if found else "has no end-of-text token that is known"
    raise ValueError(f"{where} {told}: name one with eos; its special tokens are {_specials(tokenizer)}")
