"""SentencePiece models of normalised text: training one, and turning text into the word ids that n-grams are counted in."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.ngram import BEGIN, END, UNKNOWN

if TYPE_CHECKING:
    import sentencepiece

SPECIAL_WORDS = ("<unk>", "<s>", "</s>")
_THREADS = 4  # part of the result: partial sums are added per thread
_ENDLESS = 1 << 30  # the most it takes: a document is one line, and none is to be left out for its length


def train_pieces(lines: Iterable[str], vocabulary_size: int, character_coverage: float = 0.9995) -> bytes:
    """A SentencePiece unigram model of the lines, as CCNet trains it (cc_net `Makefile`); the same lines, the same bytes.

    The vocabulary is smaller than asked for where the text has no more pieces to give. ValueError if it cannot hold the
    characters of the text.
    """
    import sentencepiece

    model = io.BytesIO()  # a file name would enter the model, and with it the folder that it was trained in
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary_size,
            character_coverage=character_coverage,
            hard_vocab_limit=False,
            max_sentence_length=_ENDLESS,
            num_threads=_THREADS,
            unk_id=UNKNOWN,
            bos_id=BEGIN,
            eos_id=END,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).rsplit("] ", 1)[-1]
        raise ValueError(f"cannot train {vocabulary_size} SentencePiece pieces on this text: {reason}") from error
    return model.getvalue()


class PieceVocabulary:
    """The words of an n-gram model over pieces: id to word in `words`, which grows.

    What SentencePiece does not know comes out of it as it stands in the text. To a language model it is a word like any other
    (to `lmplz`, which reads text, just so), with an id beyond the pieces.
    """

    def __init__(self, processor: sentencepiece.SentencePieceProcessor) -> None:
        self._processor = processor
        pieces: list[str] = processor.id_to_piece(list(range(processor.get_piece_size())))
        if tuple(pieces[:3]) != SPECIAL_WORDS:
            raise ValueError(f"the SentencePiece model begins with {pieces[:3]}, not with {', '.join(SPECIAL_WORDS)}")
        self.words = pieces
        self._unknown: dict[str, int] = {}

    def encode(self, lines: Sequence[str], threads: int = -1) -> list[np.ndarray]:
        """The word ids (uint32) of each normalised line. threads: -1 for all cores."""
        found: list[list[int]] = self._processor.encode(list(lines), num_threads=threads)
        return [
            np.array(self._name(line, ids) if UNKNOWN in ids else ids, np.uint32)
            for line, ids in zip(lines, found, strict=True)
        ]

    def _name(self, line: str, ids: list[int]) -> list[int]:
        pieces: list[str] = self._processor.encode(line, out_type=str)
        named = [self._number(piece) if i == UNKNOWN else i for i, piece in zip(ids, pieces, strict=True)]
        return [i for i in named if i > END]

    def _number(self, piece: str) -> int:
        if piece in SPECIAL_WORDS:
            return UNKNOWN  # dropped: what the text spells must not end a sentence
        number = self._unknown.get(piece)
        if number is None:
            number = self._unknown[piece] = len(self.words)
            self.words.append(piece)
        return number
