"""What blind guessers found: whether members and non-members come from one distribution."""

from __future__ import annotations

from typing import Literal

import scipy
from pydantic import Field

from raymia.metrics.summary import Estimate, Result

ShiftState = Literal["no_shift_found", "shift", "not_checked"]

ShiftLevel = Literal["none", "note", "stop"]

STRONG_P_VALUE, LARGE_EXCESS = 0.001, 0.05
"""A shift stops an audit where its p-value is below the one, after a correction for the number of
guessers, and the AUC of the best is above 0.5 by the other."""
TIMES_STRONGER = 2.0
"""How much further from 0.5 an attack's AUC has to be than the best guesser's, so that what the
guesser sees is no more than half of it."""
LISTED = 50
"""Pairs and records beyond this many are counted but not named."""


class BlindGuess(Result):
    """How well one guesser that sees no target tells members from non-members."""

    name: str = Field(description="name of the guesser")
    title: str = Field(description="what it looks at, for a person to read")
    fitted: bool = Field(
        description="whether it is a classifier, fitted on other records than it is judged by"
    )
    sides: Literal[1, 2] = Field(
        description="1: tested for an AUC above 0.5; 2: for one that differs from 0.5, turned to "
        "the side on which it guesses better"
    )
    higher_is_member: bool = Field(
        description="whether it takes a higher value for a member; the AUC is of this side"
    )
    n_members: int = Field(ge=1, description="members with a guess")
    n_non_members: int = Field(ge=1, description="non-members with a guess")
    auc: Estimate = Field(
        description="with DeLong's interval, widened where guesses on labels drawn at random "
        "scatter more than DeLong's variance allows"
    )
    p_value: float = Field(
        gt=0, le=1, description="share of random labelings on which it guesses as well"
    )
    corrected_p_value: float = Field(
        gt=0, le=1, description="the same after Holm's correction over all guessers"
    )
    null_spread: float | None = Field(
        default=None,
        ge=0,
        description="standard deviation of its AUC over random labelings; none in earlier runs",
    )

    @property
    def tail(self) -> float:
        """The p-value by a normal approximation, which may be smaller than one in the number of
        labelings."""
        spread = self.null_spread
        if spread is None:
            spread = (self.auc.high - self.auc.low) / 4
        if spread <= 0.0:
            return self.p_value if self.auc.value <= 0.5 else 0.0
        return self.sides * float(scipy.stats.norm.sf((self.auc.value - 0.5) / spread))

    def stops(self, guessers: int) -> bool:
        """Whether what it shows is strong, after a correction for so many guessers, and large."""
        return self.tail * guessers < STRONG_P_VALUE and self.auc.value - 0.5 >= LARGE_EXCESS

    @property
    def label(self) -> str:
        """The name, with the side that it was turned to."""
        return self.name if self.higher_is_member else f"-{self.name}"


class NgramOverlap(Result):
    """How much of the non-members stands in members word for word (Duan et al. 2024)."""

    threshold: float = Field(description="share of a non-member's n-grams that counts as most")
    looked_at: int = Field(ge=0, description="non-members long enough to have an n-gram")
    too_short: int = Field(ge=0, description="non-members that are not")
    mean_share: float | None = Field(
        description="mean share of a non-member's n-grams that stand in a member"
    )
    mostly: int = Field(ge=0, description="non-members most of whose n-grams stand in members")
    records: list[str] = Field(description="ids of the first 50 of these")


class NearDuplicate(Result):
    """A non-member that is nearly a member."""

    non_member: str = Field(description="id of the non-member")
    member: str = Field(description="id of the member that is most like it")
    similarity: float = Field(ge=0, le=1, description="1 for equals")


class NearDuplicates(Result):
    """Non-members that are nearly members: their label is in doubt, and attacks look weaker."""

    measure: str = Field(description="what the similarity is of")
    threshold: float = Field(description="the similarity from which on they count")
    non_members: int = Field(ge=0, description="non-members with such a member")
    pairs: list[NearDuplicate] = Field(description="the first 50, the most similar first")


class CopiesWithin(Result):
    """Members that are nearly copies of other members, and non-members likewise."""

    members: int = Field(ge=0, description="members with a near-copy among members")
    non_members: int = Field(ge=0, description="non-members with one among non-members")
    share_of_members: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="how many independent members there seemed to be, as a share of all, in "
        "earlier runs",
    )
    share_of_non_members: float | None = Field(
        default=None, gt=0, le=1, description="the same of non-members"
    )
    groups: int = Field(ge=0, description="clusters of copies, which should be groups")
    across_groups: int | None = Field(
        default=None,
        ge=0,
        description="clusters with records in several groups; none in earlier runs",
    )
    proposed: list[list[str]] = Field(
        description="ids of the first 50 clusters, the largest first; 50 ids of each at most"
    )


class ShiftCheck(Result):
    """Whether members and non-members come from one distribution, as far as blind guessers see.

    Where they do not, a guesser that never saw the target tells them apart, and the AUC of an
    attack says nothing about leakage (Das et al. 2024, arXiv 2406.16201; Duan et al. 2024, arXiv
    2402.07841).
    """

    state: ShiftState = Field(description="the verdict")
    reason: str | None = Field(default=None, description="why it was not checked")
    error_rate: float = Field(
        gt=0, lt=1, description="chance of the verdict `shift` where the split is random"
    )
    labelings: int = Field(
        default=0, ge=0, description="random labelings that every guesser was compared with"
    )
    n_members: int = Field(ge=0, description="members that guessers were asked about")
    n_non_members: int = Field(ge=0, description="non-members that they were asked about")
    left_out: int = Field(
        default=0, ge=0, description="members and non-members that they were not asked about"
    )
    guesses: list[BlindGuess] = Field(
        default=[],
        description="those that found a shift first, then by AUC; the first is the strongest",
    )
    ngram_overlap: NgramOverlap | None = Field(default=None, description="none for images")
    near_duplicates: NearDuplicates | None = Field(default=None, description="none if not checked")
    same_text: int = Field(
        default=0,
        ge=0,
        description="non-members whose scored text is that of a member, however short it is",
    )
    searched: int | None = Field(
        default=None,
        ge=0,
        description="members and non-members that were searched for copies on one side; none in "
        "earlier runs, which searched those that guessers were asked about",
    )
    copies: CopiesWithin | None = Field(
        default=None, description="on one side; none in earlier runs, unless guessers were asked"
    )
    split: Literal["unknown", "randomized"] = Field(
        default="unknown", description="what the audit file says of how the records were split"
    )

    @property
    def n_searched(self) -> int:
        """Members and non-members that were searched for copies on one side."""
        asked = self.n_members + self.n_non_members
        return asked if self.searched is None else self.searched

    @property
    def n_not_searched(self) -> int:
        return self.n_members + self.n_non_members + self.left_out - self.n_searched

    @property
    def strongest(self) -> BlindGuess | None:
        return self.guesses[0] if self.guesses else None

    @property
    def level(self) -> ShiftLevel:
        """`stop` where a shift is strong and large by one guesser: then attacks that are not far
        stronger than the best guesser are not measured by it. `note` where it is neither, or where
        the records are stated to be split at random: then chance is the likelier cause."""
        if self.state != "shift":
            return "none"
        if not self.guesses:
            return "stop"
        stops = any(guess.stops(len(self.guesses)) for guess in self.guesses)
        return "stop" if stops and self.split == "unknown" else "note"


class ExcessOverBlind(Result):
    """What an attack adds to the strongest blind guesser, on the same records."""

    target: str = Field(description="name of the checkpoint under audit")
    attack: str = Field(description="name of the attack, statistic@reference where it has one")
    guesser: str = Field(description="name of the strongest blind guesser")
    n_members: int = Field(ge=2, description="members that both scored")
    n_non_members: int = Field(ge=2, description="non-members that both scored")
    attack_auc: float = Field(ge=0, le=1, description="AUC of the attack on these records")
    guesser_auc: float = Field(ge=0, le=1, description="AUC of the guesser on these records")
    excess: Estimate = Field(
        description="the first less the second, with DeLong's interval, widened"
    )
    p_value: float = Field(ge=0, le=1, description="two-sided, that the AUCs are equal")
    corrected_p_value: float = Field(
        ge=0, le=1, description="the same after Holm's correction over all targets and attacks"
    )
    confidence: float = Field(gt=0, lt=1, description="nominal level of the interval")

    @property
    def is_far_stronger(self) -> bool:
        """Whether a guess explains less than half of the attack, and chance not the rest."""
        beyond = self.attack_auc - 0.5 > TIMES_STRONGER * abs(self.guesser_auc - 0.5)
        return beyond and self.excess.value > 0 and self.corrected_p_value <= 0.05
