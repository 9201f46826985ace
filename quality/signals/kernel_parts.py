"""Parts of the kernels of rules: characters of UTF-8, white space, ends of lines, sets of hashes."""

from __future__ import annotations

import numpy as np

from pipeline.compiled import part

_NEWLINE = 10
_MIX = np.uint64(0xFF51AFD7ED558CCD)


@part
def is_space(code):
    """str.isspace."""
    if code < 0x85:
        return code == 32 or 9 <= code <= 13 or 28 <= code <= 31
    if code < 0x1680:
        return code == 0x85 or code == 0xA0
    if code <= 0x205F:
        return (
            code == 0x1680 or 0x2000 <= code <= 0x200A or code == 0x2028 or code == 0x2029 or code == 0x202F or code == 0x205F
        )
    return code == 0x3000


@part
def code_at(data, i):
    """The code point that begins at byte i of valid UTF-8."""
    first = np.int64(data[i])
    if first < 0x80:
        return first
    if first < 0xE0:
        return ((first & 0x1F) << 6) | (data[i + 1] & 0x3F)
    if first < 0xF0:
        return ((first & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F)
    return ((first & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12) | ((data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F)


@part
def width_at(data, i):
    """Bytes of the character that begins at byte i."""
    first = data[i]
    if first < 0x80:
        return 1
    if first < 0xE0:
        return 2
    return 3 if first < 0xF0 else 4


@part
def last_start(data, begin, end):
    """Where the last character of data[begin:end], which is not empty, begins."""
    i = end - 1
    while i > begin and data[i] & 0xC0 == 0x80:
        i -= 1
    return i


@part
def lstrip(data, begin, end):
    """Where the text begins without leading white space."""
    while begin < end and is_space(code_at(data, begin)):
        begin += width_at(data, begin)
    return begin


@part
def rstrip(data, begin, end):
    """Where the text ends without trailing white space."""
    while end > begin:
        i = last_start(data, begin, end)
        if not is_space(code_at(data, i)):
            break
        end = i
    return end


@part
def break_width(data, i, end):
    """Bytes of the line break of str.splitlines at byte i; 0 if there is none."""
    byte = data[i]
    if byte > 30:
        if byte == 0xC2:
            return 2 if data[i + 1] == 0x85 else 0
        if byte == 0xE2:
            return 3 if data[i + 1] == 0x80 and (data[i + 2] == 0xA8 or data[i + 2] == 0xA9) else 0
        return 0
    if byte == 13:
        return 2 if i + 1 < end and data[i + 1] == _NEWLINE else 1
    return 1 if 10 <= byte <= 12 or byte >= 28 else 0


@part
def is_among(codes, code):
    """Whether a code point is in a sorted array."""
    low, high = 0, len(codes)
    while low < high:
        middle = (low + high) >> 1
        if codes[middle] < code:
            low = middle + 1
        else:
            high = middle
    return low < len(codes) and codes[low] == code


@part
def ends_with_dots(data, begin, end):
    """Whether data[begin:end] ends with three full stops."""
    return end - begin >= 3 and data[end - 1] == 46 and data[end - 2] == 46 and data[end - 3] == 46


@part
def ends_with_ellipsis(data, begin, end):
    """Whether data[begin:end] ends with `...` or U+2026."""
    if ends_with_dots(data, begin, end):
        return True
    return end - begin >= 3 and data[end - 3] == 0xE2 and data[end - 2] == 0x80 and data[end - 1] == 0xA6


@part
def starts_with_bullet(data, begin, end):
    """Whether data[begin:end] begins with `-` or U+2022."""
    if begin < end and data[begin] == 45:
        return True
    return end - begin >= 3 and data[begin] == 0xE2 and data[begin + 1] == 0x80 and data[begin + 2] == 0xA2


@part
def finish_hash(value):
    """A hash whose bits all depend on all bits of the value; never 0, which marks an empty slot."""
    value ^= value >> np.uint64(33)
    value *= _MIX
    value ^= value >> np.uint64(29)
    return value | np.uint64(1)


@part
def seen_before(slots, size, key):
    """Put a key into a set of `size` slots, a power of two; whether it was there."""
    slot = np.int64(key >> np.uint64(8)) & (size - 1)
    while slots[slot] != 0:
        if slots[slot] == key:
            return True
        slot = (slot + 1) & (size - 1)
    slots[slot] = key
    return False


@part
def larger(slots, size):
    """The set with twice the slots."""
    grown = np.zeros(max(2 * size, len(slots)), np.uint64)
    for i in range(size):
        if slots[i] != 0:
            seen_before(grown, 2 * size, slots[i])
    return grown
