"""Records of a TensorBoard event file, as tensorboardX makes them: writes tensorboard.json.

    pip install tensorboardX; python3 tensorboard.py
"""

import io
import json
import pathlib

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter


def record(event):
    class Kept(io.BytesIO):
        def close(self):
            pass

    writer = RecordWriter.__new__(RecordWriter)
    writer._writer = Kept()
    writer.write(event.SerializeToString())
    return writer._writer.getvalue().hex()


def scalars(time, step, values):
    values = [summary_pb2.Summary.Value(tag=tag, simple_value=value) for tag, value in values]
    return event_pb2.Event(wall_time=time, step=step, summary=summary_pb2.Summary(value=values))


assert EventsWriter  # the module that frames events as this script does
START = event_pb2.SessionLog.START
records = {
    "version": record(event_pb2.Event(wall_time=1.5, file_version="brain.Event:2")),
    "scalars": record(scalars(1764000000.25, 300, [("step/loss", -92.5), ("step/rate", 0.0)])),
    "resumed": record(event_pb2.Event(wall_time=2.0, step=8, session_log=event_pb2.SessionLog(status=START))),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(records, indent=1) + "\n")
