#!/usr/bin/env python3
"""A baseline trained without this project: a torchvision ResNet-18 by multi-scale VICReg in PyTorch, saved as other programs do.

    python3 docs/compare/baseline.py bagssl-data/data/photo-tiles-mini.tar OUT [--epochs 40] [--seed 0]

VICReg (arXiv:2105.04906) on two random resized crops of each image, with torchvision's transforms, AdamW and a cosine
schedule; the tiles' train/ half alone. Writes the same weights in the layouts that `bagssl import` reads: torchvision.pth (with the
classifier that nobody trained), vicreg.pth (the encoder alone), vicreg-full.pth, solo-learn.ckpt and lightly.ckpt. Needs
PyTorch and torchvision; takes minutes on a CPU.
"""
import argparse
import io
import math
import pathlib
import tarfile

import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T


def images(tar):
    with tarfile.open(tar) as archive:
        members = [m for m in archive if m.isfile() and "/train/" in m.name and m.name.endswith(".jpg")]
        members.sort(key=lambda member: member.name)
        return [Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB") for m in members]


def projector(sizes):
    layers = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=False))


def vicreg(x, y):
    def spread(z):
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)
        off = covariance - torch.diag(torch.diag(covariance))
        return torch.relu(1 - torch.sqrt(z.var(0) + 1e-4)).mean() / 2, off.pow(2).sum() / z.shape[1]

    (deviation_x, covariance_x), (deviation_y, covariance_y) = spread(x), spread(y)
    invariance = nn.functional.mse_loss(x, y)
    return 25 * invariance + 25 * (deviation_x + deviation_y) + covariance_x + covariance_y


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8)
    blur = T.RandomApply([T.GaussianBlur(5)], 0.5)
    change = [T.RandomResizedCrop(64, (0.2, 1.0)), T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2), blur]
    view = T.Compose([*change, T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    photographs = images(args.tar)
    whole = torchvision.models.resnet18()
    classifier, whole.fc = whole.fc, nn.Identity()
    expander = projector([512, 512, 512, 128])
    model = nn.ModuleDict({"backbone": whole, "projector": expander})
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps = args.epochs * (len(photographs) // args.batch)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    for epoch in range(args.epochs):
        order, total = torch.randperm(len(photographs)).tolist(), 0.0
        for first in range(0, len(order) - args.batch + 1, args.batch):
            chosen = [photographs[i] for i in order[first : first + args.batch]]
            x, y = (expander(whole(torch.stack([view(image) for image in chosen]))) for _ in range(2))
            loss = vicreg(x, y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / (len(order) // args.batch):.3f}", flush=True)

    def named(prefix, module):
        return {f"{prefix}{name}": value for name, value in module.state_dict().items()}

    backbone = named("", whole)
    children = nn.Sequential(*[child for name, child in whole.named_children() if name != "fc"])
    training = {**named("module.backbone.", whole), **named("module.projector.", expander)}
    torch.save({**backbone, **named("fc.", classifier)}, args.out / "torchvision.pth")
    torch.save(backbone, args.out / "vicreg.pth")
    torch.save({"epoch": args.epochs, "model": training, "optimizer": optimiser.state_dict()}, args.out / "vicreg-full.pth")
    solo = {**named("backbone.", whole), **named("projector.", expander)}
    torch.save({"epoch": args.epochs, "state_dict": solo, "hyper_parameters": {"method": "vicreg"}}, args.out / "solo-learn.ckpt")
    torch.save({"state_dict": named("backbone.", children)}, args.out / "lightly.ckpt")


main()
