#!/usr/bin/env python3
"""A baseline trained without this project: a torchvision ResNet-18 by multi-scale VICReg in PyTorch, saved as other programs do.

    python3 docs/compare/baseline.py photo-tiles-64.tar OUT --input 32 --epochs 8 --batch 128 --seed 0 --threads 1 --workers 1

VICReg (arXiv:2105.04906) on two random resized crops of each image, of 8 to 100 % of its area, with torchvision's transforms,
AdamW and a cosine schedule to 0; the tiles' train/ half alone. Prints for each epoch the loss and the standard deviation of the
projections over the batch, mean and least of their dimensions (0 where they have collapsed; the loss asks for 1). Writes the same
weights in the layouts that `bagssl import` reads: torchvision.pth (with the classifier that nobody trained), vicreg.pth (the
encoder alone), vicreg-full.pth, solo-learn.ckpt and lightly.ckpt. Needs PyTorch and torchvision; no GPU.
"""
import argparse
import io
import math
import pathlib
import tarfile
import time

import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision import transforms as T


class Pairs(torch.utils.data.Dataset):
    """Two views of each image of the archive's train/ half."""

    def __init__(self, tar, view):
        self.view = view
        with tarfile.open(tar) as archive:
            members = [m for m in archive if m.isfile() and "/train/" in m.name and m.name.endswith(".jpg")]
            members.sort(key=lambda member: member.name)
            self.images = [Image.open(io.BytesIO(archive.extractfile(m).read())).convert("RGB") for m in members]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.view(self.images[index]), self.view(self.images[index])


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


def save(out, epochs, whole, classifier, expander, optimizer):
    def named(prefix, module):
        return {f"{prefix}{name}": value for name, value in module.state_dict().items()}

    backbone = named("", whole)
    children = nn.Sequential(*[child for name, child in whole.named_children() if name != "fc"])
    training = {**named("module.backbone.", whole), **named("module.projector.", expander)}
    solo = {**named("backbone.", whole), **named("projector.", expander)}
    torch.save({**backbone, **named("fc.", classifier)}, out / "torchvision.pth")
    torch.save(backbone, out / "vicreg.pth")
    torch.save({"epoch": epochs, "model": training, "optimizer": optimizer.state_dict()}, out / "vicreg-full.pth")
    torch.save({"epoch": epochs, "state_dict": solo, "hyper_parameters": {"method": "vicreg"}}, out / "solo-learn.ckpt")
    torch.save({"state_dict": named("backbone.", children)}, out / "lightly.ckpt")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--input", type=int, default=64, help="side that crops are resampled to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--workers", type=int, default=0, help="processes that load images, beside this one")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    crop = T.RandomResizedCrop(args.input, (0.08, 1.0))
    jitter = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8)
    blur = T.RandomApply([T.GaussianBlur(2 * (args.input // 24) + 1)], 0.5)
    colors = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    view = T.Compose([crop, T.RandomHorizontalFlip(), jitter, T.RandomGrayscale(0.2), blur, T.ToTensor(), colors])
    pairs = Pairs(args.tar, view)
    loader = torch.utils.data.DataLoader(pairs, args.batch, shuffle=True, drop_last=True, num_workers=args.workers)
    whole = torchvision.models.resnet18()
    classifier, whole.fc = whole.fc, nn.Identity()
    expander = projector([512, 512, 512, 128])
    model = nn.ModuleDict({"backbone": whole, "projector": expander})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps = args.epochs * len(loader)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    print(f"{len(pairs)} images, {len(loader)} steps an epoch", flush=True)
    for epoch in range(args.epochs):
        start, total, least, mean = time.time(), 0.0, 0.0, 0.0
        for batch in loader:
            x, y = (expander(whole(views)) for views in batch)
            loss = vicreg(x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            deviation = x.detach().std(0)
            total, mean, least = total + loss.item(), mean + deviation.mean().item(), least + deviation.min().item()
        loss, mean, least = (value / len(loader) for value in (total, mean, least))
        seconds = time.time() - start
        print(f"epoch {epoch + 1}: loss {loss:.3f}, deviation {mean:.3f} (least {least:.3f}), {seconds:.1f} s", flush=True)
    save(args.out, args.epochs, whole, classifier, expander, optimizer)


main()
