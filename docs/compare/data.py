"""Compares the making of training patches with torchvision, on one core, in one run.

    python3 docs/compare/data.py target/release/bagssl CIFAR_FOLDER TILES.tar [--rounds 5]

needs torch, torchvision, Pillow and NumPy. CIFAR_FOLDER holds CIFAR-100's binary files, TILES.tar is the larger set of
photograph tiles; photographs of 500x375 are made of its tiles, side by side, as JPEG of quality 90. Both sides take
turns, each on one core; ratios are those of medians.
"""

import argparse
import io
import json
import os
import pathlib
import random
import statistics
import subprocess
import tarfile
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from PIL import Image
from torchvision import transforms as T

torch.set_num_threads(1)


def emp_ssl(crop):
    """EMP-SSL's published augmentation, after the crop that is given (arXiv:2304.03977)."""
    return T.Compose(
        [
            crop,
            T.RandomHorizontalFlip(0.5),
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.2)], p=0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([T.Lambda(blur)], p=0.1),
            T.RandomSolarize(128, p=0.1),
            T.ToTensor(),
            T.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )


def blur(image):
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))


def cifar(folder):
    raw = np.fromfile(pathlib.Path(folder) / "train.bin", dtype=np.uint8).reshape(-1, 3074)
    return [Image.fromarray(row[2:].reshape(3, 32, 32).transpose(1, 2, 0)) for row in raw[:2000]]


def photographs(tar, folder, count=60):
    """`count` JPEGs of 500x375, made of tiles of 64x64."""
    tiles = []
    with tarfile.open(tar) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg") and "/train/" in member.name:
                tiles.append(Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB"))
            if len(tiles) == count * 48:
                break
    for half, numbers in [("train", range(count)), ("val", range(2))]:
        (pathlib.Path(folder) / half / "all").mkdir(parents=True)
        for number in numbers:
            canvas = Image.new("RGB", (512, 384))
            for place in range(48):
                canvas.paste(tiles[(number * 48 + place) % len(tiles)], (place % 8 * 64, place // 8 * 64))
            path = pathlib.Path(folder) / half / "all" / f"{number:03}.jpg"
            canvas.crop((0, 0, 500, 375)).save(path, quality=90)


def rate(work, seconds=1.0):
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        done += work()
    return done / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bagssl")
    parser.add_argument("cifar")
    parser.add_argument("tiles")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    photographs(args.tiles, folder.name)
    small = cifar(args.cifar)
    files = sorted((pathlib.Path(folder.name) / "train" / "all").iterdir())
    quarter = emp_ssl(T.RandomResizedCrop(32, (0.25, 0.25), (1.0, 1.0)))
    cut = emp_ssl(T.Compose([T.RandomCrop(64), T.Resize(32)]))

    def ours(*more):
        command = [args.bagssl, "bench", "data", "--rounds", "1", "--seconds", "1", "--json", *more]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return result.get("patches_per_second", result["images_per_second"])

    def theirs_small():
        image = random.choice(small)
        for _ in range(20):
            quarter(image)
        return 20

    def theirs_large():
        image = Image.open(random.choice(files)).convert("RGB")
        for _ in range(20):
            cut(image)
        return 20

    def theirs_decoding():
        Image.open(random.choice(files)).convert("RGB").load()
        return 1

    one = ["--threads", "1", "--patches", "20"]
    rows = [
        ("EMP-SSL, CIFAR-size, 20 patches (patches/s)", theirs_small, ["--data", args.cifar, *one]),
        (
            "JPEG of 500x375: decode, 20 crops 64 to 32, jitter (patches/s)",
            theirs_large,
            ["--data", folder.name, "--crop", "64", "--decode", "--images", "10", *one],
        ),
        ("JPEG of 500x375: decode (images/s)", theirs_decoding, ["--data", folder.name, "--decode-only"]),
    ]
    print("| work, one core | bagssl | torchvision, Pillow | ratio |\n|---|---:|---:|---:|")
    for name, work, arguments in rows:
        pairs = [(ours(*arguments), rate(work)) for _ in range(args.rounds)]
        a, b = (statistics.median(side) for side in zip(*pairs))
        print(f"| {name} | {a:.0f} | {b:.0f} | {a / b:.2f} |", flush=True)


main()
