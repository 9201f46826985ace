"""Word lists as they are published: checksums, and the block list of domains as the file that signals read."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any

UT1_CATEGORIES = (
    "adult", "agressif", "agressive", "arjel", "chat", "dating", "ddos", "filehosting", "gambling", "mixed_adult", "phishing",
    "porn", "violence",
)  # fmt: skip
"""RedPajama-V2's categories of the block list, sorted: a signal's value is the number of a combination of them."""
LDNOOBW_SHA256 = {
    "ar": "23dbd9c55257bf2a4965f46664dc7eac04b61ff4eb3571e41f7e964c7c3ed96b",
    "cs": "90706df86709bade1ca39cf9f9d9836409c674fc3bffcb7525bdd20e59b596bc",
    "da": "ddb46ab67e955d1a5f49c89c18497d23c3d8d6d2522f3740a5d7583f90e434c6",
    "de": "ebe44d7772897390e27f7bec412fdcdf0efc294e4db157f8487c4cd8d4fabd55",
    "en": "af851ecef1d5f212caba17339b12ac39cc2fef7d78c74876f67237644fcee8bd",
    "eo": "0374d76be1dbc77c61362d6e51305e1e4c546b7f734eb96e0bdbad7fd2a6ace1",
    "es": "073334261cc2e7c08339faefd2f19f9623e8240a0ac18fe2a26c368b897496ce",
    "fa": "85828629b90fd18a3f6f6efb1934c1294103c33d1c28c0653970adfa179169e9",
    "fi": "3e0b35b2533ba22fb526d882bea250ddfad907ee7548aacbe15db17e21034c62",
    "fil": "fb4b43691b1249fee2eca1e66795daedda8e7366d42abcde6553dce611d23d99",
    "fr": "79763a705e08256b393952852bb63aa903f4485e0ef02f70735f5e50efff213c",
    "hi": "83636e9b7a5260451e09e9e471f81dad9f082d107a82da77047e57d7856ed0cc",
    "hu": "a6943a971496f16e9a9d59ba6fde146d229699600e9636828d8d34ed9160aff5",
    "it": "d413f41018d58aa79d2c4809d0161f29ffd5652c4dc34c5b7b9ade680ee5599a",
    "ja": "f83c4d0843ea6474c17bf171edd72b616b3af403f8613f2cde1bd841faf6f316",
    "kab": "df7be2ce4a0c80ee717cd7134c90645a8a0f0c0c458a61f927934dbd50eac96d",
    "ko": "0dd4b74ffea6e3bb35d658e6d8262b53ee99281eaa48ecb515a2065bfcc7f69d",
    "nl": "8298ba0cdc3ca9a1989c349b8ad0148e4504c2804f2f2fb6c2f52bfb39c5ae71",
    "no": "e55b46bcec1ea288256924523a997d8d99e124c9aa3e61cbbbfaeca294f745b4",
    "pl": "98cf824e3692255645c5a72d5913f26fd4f20930f725683b4c96bb312ca5d9b3",
    "pt": "05ef524b0bb7f83f87257f6ec4dabf70e16b8bb6930f769fb93deaf608ff196d",
    "ru": "2598adabd2b761733d72a68d8ee4fcc1d2c38f2f85b6ff489985c6ce1d93bf75",
    "sv": "77f3f99a89bd3b2bde6a654741bacfcb3acca3f5c804af4d8d3fea11e09ea562",
    "th": "835036d87a3a67738e388cd6de92e3c995c186a1427b4e830fe7b85483c257e7",
    "tr": "6c7ae03baee0f3fdc22eed169030567669005dad9a1923e0b571c4bd4f2f2ab5",
    "zh": "a1d9aa037c8b039ef3b40148b3364ce2ca62ce4a955b7082a16ad99f6cbd1bc0",
}
"""The lists of the repository's last commit, by language."""


def unpack_ut1(archive: Path, target: Path) -> None:
    """The block list of Toulouse Capitole: `blacklists/<category>/domains`, one a line; some categories are links to others."""
    of_domain: dict[str, set[str]] = {}
    with tarfile.open(archive) as tar:
        members = {PurePosixPath(m.name): m for m in tar.getmembers()}
        for category in UT1_CATEGORIES:
            folder = PurePosixPath("blacklists", category)
            if (link := members.get(folder)) is not None and link.issym():
                folder = folder.parent / link.linkname
            content = tar.extractfile(member) if (member := members.get(folder / "domains")) is not None else None
            for domain in content.read().decode("utf-8", "replace").split("\n") if content is not None else ():
                if domain.strip():
                    of_domain.setdefault(domain.strip(), set()).add(category)
    if not of_domain:
        raise ValueError(f"{archive} holds no blacklists/<category>/domains")
    numbers = combination_numbers()
    _write(target, {"domain_to_category_id": {d: numbers[tuple(sorted(c))] for d, c in sorted(of_domain.items())}})


def combination_numbers() -> dict[tuple[str, ...], int]:
    """The number of each combination of UT1_CATEGORIES: all of one category first, then of two, and so on (8191)."""
    sizes = range(1, len(UT1_CATEGORIES) + 1)
    combinations = itertools.chain.from_iterable(itertools.combinations(UT1_CATEGORIES, size) for size in sizes)
    return {combination: number for number, combination in enumerate(combinations)}


def _write(target: Path, content: dict[str, Any]) -> None:
    beside = target.with_name(f".{target.name}.tmp")
    beside.write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    beside.replace(target)
