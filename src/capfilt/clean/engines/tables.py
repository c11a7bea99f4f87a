"""Tables on their way between processes: Arrow's own stream format, in one piece."""

import pyarrow as pa
from pyarrow import ipc


def packed(table: pa.Table) -> bytes:
    """A table as bytes, its chunks put together: how parquet lays pages out hangs on them."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def unpacked(data: bytes) -> pa.Table:
    """The table that was packed."""
    with ipc.open_stream(data) as stream:
        return stream.read_all()
