"""Embeddings of torchvision's residual networks with weights from a formula, and their parameters' names and shapes.

Writes resnet.json and resnet_names.json. Run with torch and torchvision installed: python resnet.py
"""

import math

import torch
import torchvision
from torch import nn

from common import made_by, write

FORMULA = {
    "k": "index in state_dict order, without fc.* and *.num_batches_tracked, from 0",
    "i": "flat row-major index within the tensor, from 0",
    "s": "sin(0.1 * j + 1 + 0.37 * k), with j = i in the cases of phase 'linear' and j = (i * i) mod 1009 in those of phase "
    "'quadratic' (whose weights are less alike, so that a mistake shows more)",
    "conv weight": "sqrt(2 / (inputs * kernel height * kernel width)) * s",
    "norm weight": "1 + 0.1 * s",
    "norm bias": "0.1 * s",
    "running_mean": "0.1 * s",
    "running_var": "1 + 0.5 * s^2",
    "input": "sin(0.01 * i)",
    "precision": "formulas in float64, each value then rounded to float32; the network itself in float64",
}


def names(net):
    return [name for name in net.state_dict() if not name.startswith("fc.") and "num_batches" not in name]


def weight(name, k, shape, phase):
    j = torch.arange(math.prod(shape))
    j = (j * j) % 1009 if phase == "quadratic" else j
    s = torch.sin(0.1 * j + 1.0 + 0.37 * k).reshape(shape)
    if len(shape) == 4:
        return math.sqrt(2.0 / math.prod(shape[1:])) * s
    if name.endswith("running_var"):
        return 1.0 + 0.5 * s * s
    return 1.0 + 0.1 * s if name.endswith("weight") else 0.1 * s


def rounded(tensor):
    return tensor.float().double()


def build(name, small, phase):
    net = getattr(torchvision.models, name)(weights=None)
    net.fc = nn.Identity()
    if small:
        net.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        net.maxpool = nn.Identity()
    values = net.state_dict()
    for k, key in enumerate(names(net)):
        values[key] = rounded(weight(key, k, values[key].shape, phase))
    net.load_state_dict(values)
    return net.eval()


def image(*shape):
    return rounded(torch.sin(0.01 * torch.arange(math.prod(shape)))).reshape(shape)


def smallest_effect(net, x, embedding, phase):
    """The effect on the embedding of giving the least influential tensor the values of the next index k."""
    effects, values = [], net.state_dict()
    for k, key in enumerate(names(net)):
        kept = values[key].clone()
        values[key].copy_(rounded(weight(key, k + 1, kept.shape, phase)))
        effects.append(float((net(x) - embedding).abs().max() / embedding.abs().max()))
        values[key].copy_(kept)
    return min(effects)


@torch.no_grad()
def case(name, small, shape, kept, phase):
    net = build(name, small, phase)
    x = image(*shape)
    embedding = net(x)
    effect = smallest_effect(net, x, embedding, phase)
    single = net.float()(x.float()).double()
    return {
        "arch": name + ("-cifar" if small else ""),
        "phase": phase,
        "stem": "3x3 with stride 1 and padding 1, no max pool" if small else "7x7 with stride 2, max pool",
        "input_shape": list(shape),
        "embedding_dim": embedding.shape[1],
        "embedding": embedding[:, :kept],
        "norm": embedding.norm(dim=1),
        "sum": embedding.sum(dim=1),
        "float32_error": float((single - embedding).abs().max() / embedding.abs().max()),
        "smallest_effect": effect,
    }


def main():
    cases = []
    for phase in ["linear", "quadratic"]:
        cases.append(case("resnet18", False, (2, 3, 40, 56), 512, phase))
        cases.append(case("resnet18", True, (2, 3, 16, 24), 512, phase))
        cases.append(case("resnet50", False, (2, 3, 40, 56), 64, phase))
    made = made_by(__file__, f"torchvision {torchvision.__version__.split('+')[0]}")
    notes = {
        "mode": "evaluation; the embedding is the mean over the last map, [row, channel]",
        "embedding": "for resnet50 the first 64 entries of each row; norm and sum are those of the whole row",
        "float32_error": "largest difference of torch's own float32 result, over the largest entry",
        "smallest_effect": "the largest change of an entry, over the largest entry, if the least influential tensor takes the "
        "formula of index k + 1: a test's tolerance should lie below",
    }
    write(__file__, {"made_by": made, "formula": FORMULA, "notes": notes, "cases": cases})

    listed = {}
    for name in ["resnet18", "resnet34", "resnet50"]:
        net = getattr(torchvision.models, name)(weights=None)
        listed[name] = [{"name": key, "shape": list(value.shape)} for key, value in net.state_dict().items()]
    note = "the whole state dict in order, with fc.* and *.num_batches_tracked (which has no axes)"
    write(__file__, {"made_by": made, "notes": {"names": note}, **listed}, "resnet_names.json")


if __name__ == "__main__":
    main()
