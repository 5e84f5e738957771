"""Parquet files as Hugging Face's `datasets` writes them, for tests. Run with pyarrow and Pillow: python parquet.py

Eleven images of 5x3 pixels (as PNG) whose red is their number; labels are number % 3. Row groups of 4 rows.
"""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(red, size=(5, 3)):
    out = io.BytesIO()
    Image.new("RGB", size, (red, 20, 30)).save(out, "PNG")
    return out.getvalue()


rows = [{"bytes": png(number), "path": f"{number}.png"} for number in range(11)]
image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
features = {"image": {"_type": "Image"}, "label": {"names": ["ant", "bee", "cat"], "_type": "ClassLabel"}}
metadata = {"huggingface": json.dumps({"info": {"features": features}})}
here = Path(__file__).parent


def write(name, labels, metadata, **options):
    schema = pa.schema([("image", image.type), ("label", labels.type)], metadata)
    pq.write_table(pa.table([image, labels], schema), here / name, row_group_size=4, **options)


numbers = pa.array([number % 3 for number in range(11)], pa.int64())
write("snappy.parquet", numbers, metadata, compression="snappy")
write("plain.parquet", numbers, metadata, compression="none", use_dictionary=False, data_page_size=100, write_batch_size=1)
write("gzip2.parquet", numbers.cast(pa.int32()), None, compression="gzip", data_page_version="2.0")
write("zstd.parquet", numbers, metadata, compression="zstd")
write("unlabelled.parquet", pa.array([0, 1, None] * 3 + [0, 1], pa.int64()), metadata, compression="snappy")
write("lz4.parquet", numbers, metadata, compression="lz4")
write("brotli.parquet", numbers, metadata, compression="brotli", data_page_version="2.0")
deltas = {"label": "DELTA_BINARY_PACKED", "image.path": "DELTA_BYTE_ARRAY"}
plain = {"use_dictionary": False, "compression": "snappy"}
write("delta.parquet", numbers, metadata, column_encoding={"image.bytes": "DELTA_LENGTH_BYTE_ARRAY", **deltas}, **plain)
write("delta2.parquet", numbers.cast(pa.int32()), None, column_encoding={"image.bytes": "DELTA_BYTE_ARRAY", **deltas}, **plain)

# Two columns of images, the masks first (of 2x2 pixels); labels that are no whole numbers; a column of other classes.
masks = pa.array([{"bytes": png(200, (2, 2)), "path": ""} for _ in range(11)], image.type)
features = {name: {"_type": "Image"} for name in ["mask", "image"]}
schema = pa.schema(
    [("mask", image.type), ("image", image.type), ("photo", pa.binary()), ("label", pa.float64()), ("kind", pa.int64())],
    {"huggingface": json.dumps({"info": {"features": features}})},
)
photos = pa.array([png(100 + number) for number in range(11)], pa.binary())
floats, kinds = numbers.cast(pa.float64()), pa.array([number % 2 for number in range(11)], pa.int64())
pq.write_table(pa.table([masks, image, photos, floats, kinds], schema), here / "columns.parquet")
