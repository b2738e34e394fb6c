"""A Python that has this folder in its path takes it to be two hours earlier.

Only `datetime` is: raymia asks nothing else for the time of day, and gRPC's deadlines, which are
points in time, would be past.
"""

import datetime

import pandas  # noqa: F401  # builds its types on the one that is here now

BACK = datetime.timedelta(hours=2)
REAL: type[datetime.datetime] = datetime.datetime


class _Like(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, REAL)


class Earlier(datetime.datetime, metaclass=_Like):
    """Its own `now` is early; all that it makes are ordinary datetimes."""

    def __new__(cls, *args, **given):  # type: ignore[no-untyped-def]
        return REAL(*args, **given)

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return REAL.now(tz) - BACK


datetime.datetime = Earlier  # type: ignore[misc]
