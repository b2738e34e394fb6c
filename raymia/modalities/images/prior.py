"""Class images of prior preservation: trained on beside the members, and none of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow.compute as pc

from raymia.modalities.images.trained import Said
from raymia.records.base import Others, RecordSet, SetAside
from raymia.records.images import image_id, without_captions
from raymia.spec.images import Shape
from raymia.util.errors import InputError
from raymia.util.listing import listed
from raymia.util.reasons import CAME

Read = partial[dict[str, Any]]

WHAT = "class image of prior preservation"
MEMBER, OTHER = "a member", "a non-member or candidate"


def prior_lines(
    said: Mapping[str, Said], records: RecordSet, read: Read, unusable: list[SetAside]
) -> list[str]:
    """How many there are and which records are among them, a sentence for each training that had
    some.

    Parameters
    ----------
    read : images that are no records, from paths, as records are prepared.
    unusable : class images that cannot be read are added to it.

    Raises
    ------
    InputError
        If a member is one of them.
    """
    given, shape = read.keywords["spec"], read.keywords["shape"]
    folders = {tuple(one.known.prior_preservation): one.where for one in said.values()}
    if not any(folders):
        return []
    taken = _what_pictures_are(records, shape)
    lines = []
    for paths, where in folders.items():
        if not paths:
            continue
        aside: list[SetAside] = []
        key = f"{where}.prior_preservation"
        others = Others(WHAT, key, taken, aside)
        try:
            found = read(paths, spec=without_captions(given), others=others)
        except InputError as error:
            raise InputError(f"{key}: {str(error).removeprefix(f'{key}: ')}") from None
        unusable += (one for one in aside if one.record_id is None)
        among = {
            what: [one.where for one in aside if one.reason.endswith(f"that is also {what}")]
            for what in (MEMBER, OTHER)
        }
        if among[MEMBER]:
            raise InputError(
                f"{key}: {len(among[MEMBER]):,} of these class images are "
                f"among the members ({listed(among[MEMBER])}), which the target was not trained to "
                "know; take them out of records.members"
            )
        count = len(found) + len(among[OTHER])
        line = f"{where}: {count:,} class images of prior preservation were trained on too"
        if among[OTHER]:
            line += (
                f", and {len(among[OTHER]):,} of the records that are no members are among them, "
                f"which the target has seen{CAME}{listed(among[OTHER])}"
            )
        lines.append(line)
    return lines


def _what_pictures_are(records: RecordSet, shape: Shape) -> dict[str, str]:
    """Whether pictures are members, by their ids without a caption; one that is a member with one
    caption and none with another is a member."""
    found: dict[str, str] = {}
    pictures = pc.struct_field(records.table["payload"], "pixels")
    for picture, is_member in zip(pictures, records.table["is_member"], strict=True):
        identifier = image_id(picture.as_py(), shape, None)
        if is_member.as_py():
            found[identifier] = MEMBER
        else:
            found.setdefault(identifier, OTHER)
    return found
