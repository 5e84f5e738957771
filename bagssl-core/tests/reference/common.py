"""Helpers of the reference scripts: exact inputs, and JSON with up to 9 significant digits.

A tensor is {"shape": [...], "data": [flat, row-major]}.

Inputs are multiples of 1/64 (or a smaller power of two) below 10, so 9 decimal digits, float32 and float64 all
represent them exactly. Everything else is computed in float64 and rounded once, on output.
"""

import json
import math
from pathlib import Path

import torch

torch.set_default_dtype(torch.float64)
torch.use_deterministic_algorithms(True)


class Inputs:
    """A seeded source of exact inputs."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape, mean=0.0, std=1.0, grid=64):
        """Normally distributed multiples of 1/grid."""
        values = mean + std * torch.randn(*shape, generator=self.generator)
        return (values * grid).round().clamp(-9 * grid, 9 * grid) / grid

    def uniform(self, *shape, low, high, grid=64):
        """Uniformly distributed multiples of 1/grid."""
        values = low + (high - low) * torch.rand(*shape, generator=self.generator)
        return (values * grid).round() / grid

    def distinct(self, *shape, grid=64):
        """Distinct multiples of 1/grid around 0 in random order, so that maxima are unique."""
        count = math.prod(shape)
        return ((torch.randperm(count, generator=self.generator) - count // 2) / grid).reshape(shape)


def number(value):
    """Rounds to at most 9 significant digits."""
    short = float(f"{float(value):.9g}")
    return int(short) if short == int(short) and abs(short) < 1e9 else short


def plain(value):
    """Converts to JSON types: tensors become shape and data, tensors without axes become numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.ndim == 0:
            return number(value)
        return {"shape": list(value.shape), "data": [number(entry) for entry in value.flatten().tolist()]}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return number(value) if isinstance(value, float) else value


def made_by(script, note=None):
    """The header: the script and the version of torch."""
    return f"{Path(script).name}, torch {torch.__version__.split('+')[0]}" + (f", {note}" if note else "")


def write(script, content, name=None):
    """Writes the JSON file next to its script."""
    path = Path(script).with_name(name) if name else Path(script).with_suffix(".json")
    text = lines(plain(content)) + "\n"
    assert "NaN" not in text and "Infinity" not in text
    assert len(text) <= 200_000, f"{path.name} has {len(text)} bytes"
    assert json.loads(text) == plain(content)
    path.write_text(text)
    print(f"{path.name}: {len(text)} bytes")


def lines(value, indent=0):
    """Formats JSON with each tensor, list of plain values and short item on one line."""
    pad, compact = " " * indent, json.dumps(value, separators=(",", ":"))
    if len(compact) <= 100:
        return compact
    if isinstance(value, dict) and "data" not in value:
        rows = [f"{pad} {json.dumps(key)}: {lines(entry, indent + 1)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{pad}}}"
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        rows = [f"{pad} {lines(entry, indent + 1)}" for entry in value]
        return "[\n" + ",\n".join(rows) + f"\n{pad}]"
    return compact


def largest_difference(function, inputs, gradients, step=1e-6):
    """The largest difference between gradients and central differences of a function without arguments that reads
    the inputs, relative to the largest entry of all gradients."""
    worst, scale = 0.0, max(float(gradient.abs().max()) for gradient in gradients)
    with torch.no_grad():
        for tensor, gradient in zip(inputs, gradients):
            flat, expected = tensor.view(-1), gradient.reshape(-1)
            for index in range(flat.numel()):
                kept = flat[index].item()
                flat[index] = kept + step
                above = float(function())
                flat[index] = kept - step
                below = float(function())
                flat[index] = kept
                worst = max(worst, abs((above - below) / (2 * step) - float(expected[index])))
    return worst / scale
