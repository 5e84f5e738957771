"""The reference values in src/checkpoint/digest.rs. Needs: pip install xxhash"""
import struct

import xxhash


def digest(json, tensors):
    state = xxhash.xxh3_64()

    def text(value):
        state.update(struct.pack("<Q", len(value)) + value.encode())

    text(json)
    for name, (dtype, shape, data) in sorted(tensors.items()):
        text(f"{name} {dtype} {shape}")
        state.update(data)
    return state.hexdigest()


data = bytes(range(24))
print(digest("{}", {}))
print(digest('{"x":1}', {"b": ("I8", [3, 2], data[8:14]), "a.weight": ("F32", [2], data[:8])}))
