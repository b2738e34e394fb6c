"""Facts about what targets wrote."""

from __future__ import annotations

import pytest
from tiny_models import passages

from raymia.modalities.texts.written import almost_twice


def test_texts_written_again_with_a_word_changed_are_counted_but_for_the_first_of_them():
    first, second, third = (" ".join(text.split()[:30]) for text in passages(3))
    changed = first.replace(first.split()[14], "sea", 1)
    assert almost_twice([first, second, third]) == 0
    assert almost_twice([first, second, first, changed]) == pytest.approx(2 / 4)
    assert almost_twice(["no", "no", "yes"]) == pytest.approx(1 / 3), "however short"
