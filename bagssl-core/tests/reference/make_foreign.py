"""Writes files of PyTorch, and embeddings of torchvision's residual networks, as test data for the import.

Writes foreign/*.pth, foreign/*.ckpt and foreign.json. Run with torch and torchvision installed: python make_foreign.py
"""

import argparse
import collections
from pathlib import Path

import torch
import torchvision

from common import made_by, write
from resnet import build, image

FOLDER = Path(__file__).with_name("foreign")


def odd():
    """Tensors in all storage types and layouts. foreign.json lists their `values`."""
    base = torch.arange(24, dtype=torch.float32) / 4
    return collections.OrderedDict(
        plain=base[:6].clone().reshape(2, 3),
        turned=base.clone().reshape(2, 3, 4).permute(2, 0, 1),
        part=base.clone().reshape(4, 6)[1:3, 2:5],
        first=base[:12],
        second=base[12:],
        double=torch.tensor([0.1, -2.5], dtype=torch.float64),
        half=torch.tensor([1.5, -0.25, 6e-8], dtype=torch.float16),
        bf16=torch.tensor([1.0, -3.140625], dtype=torch.bfloat16),
        parameter=torch.nn.Parameter(torch.tensor([7.0])),
        scalar=torch.tensor(2.5, dtype=torch.float32),
        empty=torch.zeros(0, 3, dtype=torch.float32),
        counter=torch.tensor(9),
    )


def named(tensors):
    listed = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            values = tensor.detach().float().double().reshape(-1).tolist()
            listed[name] = {"shape": list(tensor.shape), "data": values}
    return listed


def small(prefix):
    """The state dict of a torch module, which has `_metadata`."""
    return torch.nn.ModuleDict({prefix: torch.nn.BatchNorm1d(2).float()}).state_dict()


@torch.no_grad()
def embeddings():
    cases = []
    for name in ["resnet18", "resnet34", "resnet50"]:
        for stem in [False, True]:
            shape = (1, 3, 16, 24) if stem else (1, 3, 40, 56)
            embedding = build(name, stem, "quadratic")(image(*shape))
            case = {"arch": name + ("-cifar" if stem else ""), "input_shape": list(shape), "embedding": embedding[:, :64]}
            cases.append(case)
    return cases


def main():
    FOLDER.mkdir(exist_ok=True)
    tensors = odd()
    torch.save(tensors, FOLDER / "odd.pth")
    settings = argparse.Namespace(lr=0.5, device=torch.device("cpu"), dtype=torch.float32, path=Path("a/b"), big=2**70)
    lightning = {"epoch": 3, "state_dict": small("backbone"), "hyper_parameters": settings, "callbacks": {}, "none": None}
    torch.save(lightning, FOLDER / "lightning.ckpt")
    torch.save({"epoch": 1, "model": small("module"), "optimizer": {"lr": [0.1]}}, FOLDER / "wrapped.pth")
    torch.save(small("bn1"), FOLDER / "old.pth", _use_new_zipfile_serialization=False)
    made = made_by(__file__, f"torchvision {torchvision.__version__.split('+')[0]}")
    notes = {"cases": "weights and inputs by the formula of resnet.json, phase 'quadratic'; the first 64 entries"}
    write(__file__, {"made_by": made, "notes": notes, "values": named(tensors), "cases": embeddings()}, "foreign.json")


if __name__ == "__main__":
    main()
