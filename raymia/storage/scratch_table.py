"""Tables and arrays that lie in a file of this machine and not in memory, while somebody holds
them."""

from __future__ import annotations

import mmap
import tempfile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raymia.util.errors import RaymiaError

_ZEROS = 2**17


class ScratchTable:
    """A table that is written piece by piece and then mapped: its pages are the file's, which the
    system takes back where memory is short.

    The file is in the folder for temporary files (``TMPDIR``) and has no name, so that nothing is
    left of it once nobody holds the table, however the process ends.
    """

    def __init__(self, schema: pa.Schema) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="raymia-")  # noqa: SIM115
            self._writer = pa.ipc.new_file(self._file, schema)
        except OSError as error:
            raise _no_room(error) from error

    def add(self, rows: pa.RecordBatch | pa.Table) -> None:
        """Write rows after those that are there.

        Raises
        ------
        RaymiaError
            If the folder for temporary files has no room.
        """
        try:
            self._writer.write(rows)
        except OSError as error:
            raise _no_room(error) from error

    def table(self) -> pa.Table:
        """All that was written; nothing can be added any more."""
        try:
            self._writer.close()
            with self._file as file:
                file.flush()
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _no_room(error) from error
        return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()


def scratch_array(size: int) -> npt.NDArray[np.float64]:
    """So many zeros in such a file, to be written over.

    Raises
    ------
    RaymiaError
        If the folder for temporary files has no room: what is written to a mapped file later finds
        its room taken already.
    """
    zeros = np.zeros(min(size, _ZEROS))
    try:
        with tempfile.TemporaryFile(prefix="raymia-") as file:
            for start in range(0, size, _ZEROS):
                file.write(zeros[: size - start].data)
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0)
    except OSError as error:
        raise _no_room(error) from error
    return np.frombuffer(mapped, np.float64)


def _no_room(error: OSError) -> RaymiaError:
    return RaymiaError(
        f"{tempfile.gettempdir()}: a temporary file cannot be written there ({error}); expected "
        "room for what the audit holds on disk and not in memory; free some, or name a folder that "
        "has it in the environment as TMPDIR"
    )
