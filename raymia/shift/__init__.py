"""The shift check: do members and non-members come from one distribution?

:func:`raymia.shift.check.check_shift` asks guessers that never see a target; what they found is a
:class:`raymia.shift.result.ShiftCheck`.
"""
