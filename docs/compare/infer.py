#!/usr/bin/env python3
"""Inference side by side: `bagssl bench infer`, ONNX Runtime and OpenVINO on the same networks, in one run.

    pip install onnx onnxruntime openvino numpy
    python3 docs/compare/infer.py target/release/bagssl [--rounds 5] [--threads 2] [--only SUBSTRING]

Each row is measured in rounds; in a round its engines run one after the other, in a random order. A figure is the median
over the rounds, the ratio that of the medians. Prints a Markdown table.
"""
import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np


def ours(binary, threads, *options):
    command = [binary, "bench", "infer", "--json", "--threads", str(threads), "--runs", "9", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def timed(run, runs=9):
    run()
    run()
    seconds = []
    for _ in range(runs):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def onnx_runtime(model, batch, size, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: pixels(batch, size)}
    return lambda: session.run(None, feed)


def openvino(model, batch, size, threads, precision):
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    model = core.read_model(model)
    model.reshape([batch, 3, size, size])
    request = core.compile_model(model, "CPU", config).create_infer_request()
    values = pixels(batch, size)
    return lambda: request.infer([values])


def pixels(batch, size):
    return np.random.default_rng(0).uniform(-1, 1, (batch, 3, size, size)).astype(np.float32)


def quantized(model, target):
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Patches(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{"input": pixels(16, 32)} for _ in range(4)])

        def get_next(self):
            return next(self.left, None)

    quantize_static(model, target, Patches(), quant_format=QuantFormat.QDQ, per_channel=True,
                    weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8)


def child(kind, model, batch, size, threads):
    """In a process of its own: from the import on, a session and its first result; and the memory that it took."""
    import onnxruntime  # noqa: F401  (not part of the session)

    begun = time.perf_counter()
    run = onnx_runtime(model, batch, size, threads)
    run()
    first = 1e3 * (time.perf_counter() - begun)
    if kind == "memory":
        for _ in range(3):
            run()
    print(json.dumps({"first": first, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def in_child(kind, model, batch, size, threads):
    command = [sys.executable, __file__, "--child", kind, model, str(batch), str(size), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="")
    parser.add_argument("--child", nargs=4)
    args = parser.parse_args()
    if args.child:
        kind, model, batch, size = args.child
        child(kind, model, int(batch), int(size), args.threads)
        return
    binary, threads = os.path.abspath(args.binary), args.threads
    folder = tempfile.mkdtemp()
    models = {}

    def model(arch, *options):
        key = (arch, *options)
        if key not in models:
            path = os.path.join(folder, f"{len(models)}.onnx")
            subprocess.run([binary, "export", "--arch", arch, "-o", path, *options], check=True, capture_output=True)
            models[key] = path
        return models[key]

    checkpoint = os.path.join(folder, "resnet18.safetensors")
    subprocess.run([binary, "export", "--arch", "resnet18-cifar", "--format", "safetensors", "-o", checkpoint],
                   check=True, capture_output=True)

    def rate(*options):
        return lambda: ours(binary, threads, *options)["patches_per_second"]

    def against_ort(path, batch, size, patches=None):
        run = []

        def measure():
            if not run:
                run.append(onnx_runtime(path(), batch, size, threads))
            return (patches or batch) / timed(run[0])
        return measure

    def against_openvino(path, batch, size, precision):
        run = []

        def measure():
            if not run:
                run.append(openvino(path(), batch, size, threads, precision))
            return batch / timed(run[0])
        return measure

    def int8():
        path = os.path.join(folder, "int8.onnx")
        if not os.path.exists(path):
            quantized(model("resnet18-cifar", "--size", "32x32"), path)
        return path

    small = lambda: model("resnet18-cifar")  # noqa: E731
    infer = ["--arch", "resnet18-cifar", "--size", "32"]
    bf16 = ["--set", "avx512-bf16"]
    dense = ["--arch", "bagnet33", "--size", "224", "--batch", "1", "--dense"]
    rows = [
        ("ResNet-18, 32x32, f32, batch 64 (patches/s)", rate(*infer), "ONNX Runtime f32",
         against_ort(small, 64, 32), 1),
        ("the same, exact (no Winograd)", rate(*infer, "--exact"), "ONNX Runtime f32", against_ort(small, 64, 32), 1),
        ("the same, batch 1", rate(*infer, "--batch", "1"), "ONNX Runtime f32", against_ort(small, 1, 32), 1),
        ("the same, batch 64, AVX-512 off", rate(*infer, "--set", "avx2"), "ONNX Runtime f32 as it is",
         against_ort(small, 64, 32), 1),
        ("the same, batch 64, portable", rate(*infer, "--set", "portable"), "ONNX Runtime f32 as it is",
         against_ort(small, 64, 32), 1),
        ("ResNet-18, bf16, batch 64", rate(*infer, *bf16), "OpenVINO bf16",
         against_openvino(small, 64, 32, "bf16"), 1),
        ("ResNet-18, bf16, batch 1", rate(*infer, *bf16, "--batch", "1"), "OpenVINO bf16",
         against_openvino(small, 1, 32, "bf16"), 1),
        ("ResNet-18, bf16 of ours, batch 64", rate(*infer, *bf16), "ONNX Runtime int8",
         against_ort(int8, 64, 32), 1),
        ("ResNet-50, 224x224, f32, batch 1", rate("--arch", "resnet50", "--size", "224", "--batch", "1"),
         "ONNX Runtime f32", against_ort(lambda: model("resnet50"), 1, 224), 1),
        ("BagNet-33 dense, 224x224, f32 (patches/s)", rate(*dense), "ONNX Runtime, same dense graph",
         against_ort(lambda: model("bagnet33", "--dense"), 1, 224, 576), 1),
        ("all 576 patches of 33x33 of that image", rate(*dense), "ONNX Runtime patch by patch, batch 64",
         against_ort(lambda: model("bagnet33"), 64, 33), 1),
        ("session made + first image (ms)",
         lambda: ours(binary, threads, "--checkpoint", checkpoint, "--batch", "1")["first_milliseconds"],
         "ONNX Runtime", lambda: in_child("first", small(), 1, 32, threads)["first"], -1),
        ("peak memory, ResNet-18 f32 batch 64 (MB)",
         lambda: ours(binary, threads, "--checkpoint", checkpoint, "--batch", "64")["peak_bytes"] / 1e6,
         "ONNX Runtime", lambda: in_child("memory", small(), 64, 32, threads)["peak"] / 1e6, -1),
    ]
    print(f"| work | bagssl | against | theirs | ratio |\n|---|---:|---|---:|---:|")
    for name, mine, against, theirs, sign in rows:
        if args.only not in name:
            continue
        taken = {"mine": [], "theirs": []}
        for _ in range(args.rounds):
            engines = [("mine", mine), ("theirs", theirs)]
            random.shuffle(engines)
            for key, measure in engines:
                taken[key].append(measure())
        mine, theirs = statistics.median(taken["mine"]), statistics.median(taken["theirs"])
        ratio = mine / theirs if sign > 0 else theirs / mine
        print(f"| {name} | {mine:.1f} | {against} | {theirs:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
