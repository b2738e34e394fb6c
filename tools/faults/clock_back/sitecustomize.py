"""A Python that has this folder in its path takes it to be two hours earlier."""

import datetime
import time

BACK = datetime.timedelta(hours=2)
NOW = time.time
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
time.time = lambda: NOW() - BACK.total_seconds()
