"""meta.mat in the layout of ImageNet's devkit, with four synsets. Run with SciPy: python meta.py

MATLAB keeps numbers as floats in the smallest type that holds them; here are floats, bytes and integers of 64 bits.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

KIND = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
rows = [
    (1.0, "n02119789", "kit fox", "small grey fox", 0, []),
    (np.uint8(2), "n01440764", "tench", "freshwater fish", 0, []),
    (3, "n02084071", "dog", "a domestic animal", 0, []),
    (np.uint16(1001), "n00001740", "entity", "that which exists", 3.0, [1, 2, 3]),
]
synsets = np.zeros((len(rows), 1), dtype=KIND)
for place, row in enumerate(rows):
    synsets[place, 0] = row
savemat(Path(__file__).parent / "meta.mat", {"synsets": synsets}, do_compression=True)
