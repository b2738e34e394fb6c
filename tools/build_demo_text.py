"""Build the demo's two text files from two Debian packages of public-domain books.

The King James Bible (what the demo's small language model is pre-trained on) and Jane Austen's six
novels (what its paraphraser is trained on, and where the demo draws members and non-members) are
cut into passages of whole sentences, cleaned, and stripped of duplicates. The same two packages
always give the same two files.

    apt-get download bible-kjv-text r-cran-janeaustenr
    pip install rdata        # reads the R package's data; nothing else in raymia needs it
    python tools/build_demo_text.py \\
        --kjv-deb bible-kjv-text_4.38_all.deb --austen-deb r-cran-janeaustenr_1.0.0-1_all.deb \\
        --out raymia/demo/assets/text
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import itertools
import random
import re
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Two passages that share a run of this many words are taken for near-duplicates: long enough that
# common turns of phrase do not meet it, short enough that a quotation does.
SHARED_WORDS = 13
PARAPHRASER_SHARE = 0.4

NOVELS = {
    "emma": "Emma",
    "mansfieldpark": "Mansfield Park",
    "northangerabbey": "Northanger Abbey",
    "persuasion": "Persuasion",
    "prideprejudice": "Pride and Prejudice",
    "sensesensibility": "Sense and Sensibility",
}

# A sentence ends at . ! or ?, with any closing quote or bracket, before a space and a capital
# (perhaps behind an opening quote or bracket) ...
SENTENCE_END = re.compile(r"(?<=[.!?])([\"')]*)\s+(?=[\"'(]*[A-Z])")
# ... unless the full stop belongs to an abbreviation or an initial.
ABBREVIATION = re.compile(r"(?:^|[\s\"'(-])(?:Mr|Mrs|Messrs|Dr|St|Esq|Rev|Hon|Col|Capt|[A-Z])\.$")
WHOLE_PASSAGE = re.compile(r"^[\"'(]*[A-Z].*[.!?][\"')]*$")


def main() -> None:
    """Unpack both packages, write both Parquet files, print what was kept."""
    args = _arguments()
    args.out.mkdir(parents=True, exist_ok=True)

    bible = list(kjv_passages(read_kjv(args.kjv_deb), 25, 70))
    kept = without_duplicates(bible)
    write_parquet(args.out / "kjv.parquet", {"text": [bible[i] for i in kept]})
    print(f"kjv: kept {len(kept):,} of {len(bible):,} passages")

    novels = read_austen(args.austen_deb)
    labelled = [
        (passage, NOVELS[key])
        for key in sorted(novels)
        for passage in austen_passages(novels[key], 25, 60)
    ]
    # The base model is pre-trained on the Bible and would know a passage that quotes it.
    in_bible = {run for text in bible for run in word_runs(text)}
    kept = without_duplicates((text for text, _ in labelled), in_bible)
    splits = draw_splits(len(kept), args.seed)
    write_parquet(
        args.out / "austen.parquet",
        {
            "text": [labelled[i][0] for i in kept],
            "novel": [labelled[i][1] for i in kept],
            "split": splits,
        },
    )
    counts = ", ".join(f"{splits.count(split):,} {split}" for split in sorted(set(splits)))
    print(f"austen: kept {len(kept):,} of {len(labelled):,} passages: {counts}")


def read_kjv(package: Path) -> list[tuple[str, str]]:
    """Read the Bible's verses out of Debian's ``bible-kjv-text`` package.

    Parameters
    ----------
    package : Path
        The .deb file.

    Returns
    -------
    list of (str, str)
        The reference ("Ge1:1") and the text of each verse, in the Bible's order.

    Notes
    -----
    bible.data is "EC02Compressed Data File", then at byte 0x58 the number of blocks and the block
    borders (big-endian 32-bit), then the blocks: Unix `compress` streams that share one header.
    """
    with unpacked(package) as root:
        data = (root / "usr/lib/bible.data").read_bytes()
    if not data.startswith(b"EC02"):
        raise ValueError(f"{package}: expected bible.data to start with EC02, got {data[:4]!r}")
    (blocks,) = struct.unpack_from(">I", data, 0x58)
    borders = struct.unpack_from(f">{blocks + 1}I", data, 0x5C)
    header = data[borders[0] - 3 : borders[0]]
    text = b"".join(
        uncompress(header + data[start:end]) for start, end in itertools.pairwise(borders)
    ).decode("ascii")
    _, *verses = text.splitlines()  # the first line is a title
    return [(reference, verse) for reference, verse in (line.split(" ", 1) for line in verses)]


def read_austen(package: Path) -> dict[str, list[str]]:
    """Read the novels' lines out of Debian's ``r-cran-janeaustenr`` package.

    Parameters
    ----------
    package : Path
        The .deb file.

    Returns
    -------
    dict of str to list of str
        The printed lines of each novel, by its key in `NOVELS`.

    Notes
    -----
    Rdata.rdx is a gzipped R object that says where in Rdata.rdb each variable lies; a variable is a
    4-byte length and a zlib stream.
    """
    with unpacked(package) as root:
        folder = root / "usr/lib/R/site-library/janeaustenr/data"
        index = _read_r(gzip.decompress((folder / "Rdata.rdx").read_bytes()))["variables"]
        data = (folder / "Rdata.rdb").read_bytes()
    return {
        str(key): [str(line) for line in _read_r(zlib.decompress(data[start + 4 : start + size]))]
        for key, (start, size) in index.items()
    }


def kjv_passages(verses: Iterable[tuple[str, str]], shortest: int, longest: int) -> Iterator[str]:
    """Join consecutive verses of one chapter to passages of `shortest` to `longest` words."""
    chapters: dict[str, list[str]] = {}
    for reference, verse in verses:
        chapters.setdefault(reference.split(":")[0], []).append(" ".join(verse.split()))
    for chapter in chapters.values():
        yield from group(chapter, shortest, longest)


def austen_passages(lines: Iterable[str], shortest: int, longest: int) -> Iterator[str]:
    """Cut a novel into passages of whole sentences, `shortest` to `longest` words each.

    Headings, signatures and the like are too short to become a passage; verse and letter heads
    are indented, and are left out with their paragraph.
    """
    for paragraph in paragraphs(lines):
        if any(line.startswith(" ") for line in paragraph):
            continue
        text = " ".join(" ".join(paragraph).replace("_", "").split())
        for passage in group(sentences(text), shortest, longest):
            if WHOLE_PASSAGE.match(passage) and not re.search(r"[*\[\]]|[A-Z]{5,}", passage):
                yield passage


def paragraphs(lines: Iterable[str]) -> Iterator[list[str]]:
    """Split lines at empty ones."""
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield paragraph
            paragraph = []


def sentences(text: str) -> list[str]:
    """Split a paragraph at its sentence ends.

    Examples
    --------
    >>> sentences('"Oh! no," said Mr. Elton. "I did not." She smiled.')
    ['"Oh! no," said Mr. Elton.', '"I did not."', 'She smiled.']
    """
    found, start = [], 0
    for match in SENTENCE_END.finditer(text):
        if not ABBREVIATION.search(text[start : match.start()]):
            found.append(text[start : match.end(1)])
            start = match.end()
    return [*found, text[start:]]


def group(pieces: Iterable[str], shortest: int, longest: int) -> Iterator[str]:
    """Join consecutive pieces as soon as they reach `shortest` words; drop what does not fit.

    A piece that would lead past `longest` words ends the passage before it, and starts the next.
    """
    passage: list[str] = []
    for piece in pieces:
        words = piece.split()
        if len(passage) + len(words) > longest:
            passage = []
        passage += words
        if shortest <= len(passage) <= longest:
            yield " ".join(passage)
            passage = []


def without_duplicates(passages: Iterable[str], seen: Iterable[str] = ()) -> list[int]:
    """Find the passages to keep: the first of all that share `SHARED_WORDS` words in a row.

    Case and punctuation do not count. Every passage here has more words than that, so exact
    duplicates go too.

    Parameters
    ----------
    passages : iterable of str
        The texts, in order.
    seen : iterable of str
        Runs of words (see `word_runs`) that no kept passage may contain.

    Returns
    -------
    list of int
        The positions of the passages to keep.
    """
    runs_seen, kept = set(seen), []
    for position, text in enumerate(passages):
        runs = word_runs(text)
        if runs_seen.isdisjoint(runs):
            kept.append(position)
        runs_seen |= runs
    return kept


def word_runs(text: str) -> set[str]:
    """All runs of `SHARED_WORDS` consecutive words, without case and punctuation."""
    words = re.findall(r"[a-z0-9]+", text.casefold().replace("'", ""))
    count = max(1, len(words) - SHARED_WORDS + 1)
    return {" ".join(words[start : start + SHARED_WORDS]) for start in range(count)}


def draw_splits(count: int, seed: int) -> list[str]:
    """Draw the split of each of `count` passages: 'paraphraser' or 'audit'."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    paraphraser = set(order[: round(count * PARAPHRASER_SHARE)])
    return ["paraphraser" if index in paraphraser else "audit" for index in range(count)]


def write_parquet(path: Path, columns: dict[str, list[str]]) -> None:
    """Write columns of strings, zstd-compressed, without half a file ever being seen."""
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns), partial, compression="zstd", compression_level=19)
    partial.replace(path)


@contextlib.contextmanager
def unpacked(package: Path) -> Iterator[Path]:
    """Unpack a .deb file into a temporary folder for the length of a ``with`` block."""
    if not package.is_file():
        raise FileNotFoundError(f"no such Debian package file: {package}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "-x", str(package), folder], check=True)
        yield Path(folder)


def uncompress(block: bytes) -> bytes:
    """Decode a Unix `compress` (.Z) stream; Python's gzip module does not know it, gzip does."""
    return subprocess.run(["gzip", "-dc"], input=block, capture_output=True, check=True).stdout


def _read_r(data: bytes) -> Any:
    rdata: Any = importlib.import_module("rdata")
    return rdata.conversion.convert(rdata.parser.parse_data(data, extension=".rds"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kjv-deb", type=Path, required=True, help="bible-kjv-text_*.deb")
    parser.add_argument("--austen-deb", type=Path, required=True, help="r-cran-janeaustenr_*.deb")
    parser.add_argument("--out", type=Path, required=True, help="folder for the two Parquet files")
    parser.add_argument("--seed", type=int, default=0, help="draws the split (default 0)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
