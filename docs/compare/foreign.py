#!/usr/bin/env python3
"""`bagssl import` against the libraries themselves: files that their own classes write, and their embeddings of one patch.

    python3 docs/compare/foreign.py OUT --bagssl target/release/bagssl [--only NAME]

Trains small VICReg models for two steps on noise, as the libraries' examples do, saves them as those do, imports each file and
compares `bagssl embed` with the PyTorch module in eval mode, embedding and projection. Needs PyTorch, torchvision, lightly,
pytorch-lightning and omegaconf; for solo-learn its repository (1.0.6; PyPI's 1.0.2 needs PyTorch 1.9) on PYTHONPATH, with lightning
and timm. What is not there is left out. EMP-SSL and VICReg are no packages: their layers are written out here. Ends with 1 if a
file is refused or an embedding differs.
"""
import argparse
import functools
import pathlib
import subprocess
import warnings

import numpy
import torch
import torchvision
from PIL import Image
from torch import nn

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def resnet(name="resnet18", small=None):
    """torchvision's network without classifier; `small` is the padding of a 3x3 stem."""
    network = torchvision.models.get_model(name)
    network.fc = nn.Identity()
    if small is not None:
        network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, 1, small, bias=False), nn.Identity()
    return network


def rows(*sizes, last_bias):
    layers = []
    for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
        layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], bias=last_bias))


def steps(network, side, optimizer=None):
    """Statistics of batch norms that are not those of new ones, and with an optimizer its state."""
    network.train()
    for _ in range(2):
        output = network(torch.randn(8, 3, side, side))
        if optimizer:
            output.square().mean().backward()
            optimizer.step()
    return network.eval()


def torchvision_file(file):
    network = steps(torchvision.models.resnet18(), 64)
    torch.save(network.state_dict(), file)
    network.fc = nn.Identity()
    return network, None


def exclude_bias_and_norm(parameter):
    return parameter.ndim == 1


def vicreg_file(file):
    """main_vicreg.py: its LARS keeps a function of the script among its settings."""
    backbone, projector = resnet(), rows(512, 256, 256, 256, last_bias=False)
    model = nn.Module()
    model.backbone, model.projector = backbone, projector
    whole = nn.Sequential(backbone, projector)
    optimizer = torch.optim.SGD(whole.parameters(), 1e-3, momentum=0.9)
    steps(whole, 64, optimizer)
    optimizer.param_groups[0]["weight_decay_filter"] = exclude_bias_and_norm
    parallel = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 1, "model": parallel, "optimizer": optimizer.state_dict()}, file)
    return backbone, projector


def emp_file(file):
    """main.py and model/model.py: DataParallel of an encoder, its state dict alone."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = resnet(small=1)
            self.pre_feature = nn.Sequential(nn.Linear(512, 4096), nn.BatchNorm1d(4096), nn.ReLU())
            self.projection = rows(4096, 4096, 1024, last_bias=True)

        def forward(self, x):
            return nn.functional.normalize(self.projection(self.pre_feature(self.backbone(x))))

    network = steps(Encoder(), 32)
    torch.save(nn.DataParallel(network).state_dict(), file)
    return network.backbone, nn.Sequential(network.pre_feature, network.projection)


def noise(side, *more):
    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            return *more, [torch.randn(3, side, side) for _ in range(2)], index % 10

    return torch.utils.data.DataLoader(Noise(), batch_size=8)


def lightly_file(file, plain=False, settings=None):
    """examples/pytorch_lightning/vicreg.py, and examples/pytorch/vicreg.py (plain); with settings as Hydra gives them."""
    import pytorch_lightning
    from lightly.loss import VICRegLoss
    from lightly.models.modules.heads import VICRegProjectionHead
    from omegaconf import OmegaConf

    class VICReg(pytorch_lightning.LightningModule):
        def __init__(self, settings=None):
            super().__init__()
            self.save_hyperparameters()
            self.backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
            self.projection_head = VICRegProjectionHead(input_dim=512, hidden_dim=256, output_dim=256, num_layers=2)
            self.criterion = VICRegLoss()

        def forward(self, x):
            return self.projection_head(self.backbone(x).flatten(start_dim=1))

        def training_step(self, batch, _):
            loss = self.criterion(*(self(view) for view in batch[0]))
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.06)
            return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [1])] if settings else []

    model = VICReg(settings and OmegaConf.create(settings))
    if plain:
        torch.save(steps(model, 64).state_dict(), file)
    else:
        best = pytorch_lightning.callbacks.ModelCheckpoint(file.parent / "lightning", monitor="loss")
        trainer = pytorch_lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[best], **QUIET)
        trainer.fit(model, noise(64))
        trainer.save_checkpoint(file)
    return nn.Sequential(model.backbone, nn.Flatten()), model.projection_head


def solo_file(file, dataset):
    """scripts/pretrain/*/vicreg.yaml by solo-learn's own VICReg."""
    import lightning.pytorch
    from omegaconf import OmegaConf
    from solo.methods import VICReg

    settings = OmegaConf.create({
        "name": "vicreg", "method": "vicreg", "backbone": {"name": "resnet18", "kwargs": {}}, "max_epochs": 1,
        "method_kwargs": {"proj_hidden_dim": 256, "proj_output_dim": 256},
        "data": {"dataset": dataset, "num_classes": 10, "num_large_crops": 2, "num_small_crops": 0},
        "optimizer": {"name": "lars", "batch_size": 8, "lr": 0.3, "classifier_lr": 0.1, "weight_decay": 1e-4, "kwargs": {}},
        "scheduler": {"name": "warmup_cosine"}, "accumulate_grad_batches": None,
        "knn_eval": {"enabled": False}, "performance": {"disable_channel_last": False},
    })
    model = VICReg(settings)
    trainer = lightning.pytorch.Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **QUIET)
    trainer.fit(model, noise(32 if dataset == "cifar10" else 64, 0))
    trainer.save_checkpoint(file)
    return model.backbone, model.projector


# Name of the file: how it is made, side of the network's input, colors, and what `bagssl import` is told beside these.
CASES = {
    "torchvision.pth": (torchvision_file, 64, IMAGENET, ["--allow-unused"]),
    "vicreg-full.pth": (vicreg_file, 64, IMAGENET, []),
    "emp-ssl.pt": (emp_file, 32, HALF, []),
    "lightly.ckpt": (lightly_file, 64, IMAGENET, []),
    "lightly-plain.pth": (functools.partial(lightly_file, plain=True), 64, IMAGENET, []),
    "lightly-settings.ckpt": (functools.partial(lightly_file, settings={"devices": [0], "lr": 0.06}), 64, IMAGENET, []),
    "solo-imagenet.ckpt": (functools.partial(solo_file, dataset="imagenet100"), 64, IMAGENET, ["--allow-unused"]),
    "solo-cifar.ckpt": (functools.partial(solo_file, dataset="cifar10"), 32, IMAGENET, ["--allow-unused"]),
}


def run(*command):
    print("   ", " ".join(map(str, command)))
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    print("".join(f"        {line}\n" for line in (done.stdout + done.stderr).strip().splitlines()), end="")
    return done.returncode == 0


def compare(bagssl, file, side, colors, flags, backbone, projector):
    """Whether the file is imported and gives PyTorch's rows, to 1e-4 of their largest value."""
    image, made = file.with_suffix(".png"), file.with_name(f"{file.name}.safetensors")
    pixels = numpy.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(image)
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in colors)
    patch = ((torch.from_numpy(pixels).permute(2, 0, 1) / 255 - mean) / deviation)[None]
    # A patch as large as the image: the bag is this one patch, not resampled.
    if not run(bagssl, "import", file, "-o", made, "--force", "--input", side, "--patch-side", side, *flags):
        return False
    same = True
    for tap, network in ("embedding", backbone), ("projection", projector and nn.Sequential(backbone, projector)):
        rows = file.with_suffix(f".{tap}.npy")
        if network is None or not run(bagssl, "embed", made, image, "-o", rows, "--force", "--tap", tap, "--exact"):
            same = same and network is None
            continue
        with torch.no_grad():
            wanted = network.eval()(patch).numpy()
        difference, largest = abs(numpy.load(rows) - wanted).max(), abs(wanted).max()
        print(f"    {tap}: greatest difference {difference:.2e}, greatest value {largest:.3f}")
        same = same and difference <= 1e-4 * largest
    return same


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--bagssl", default="bagssl")
    parser.add_argument("--only", help="a name of " + ", ".join(CASES))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name, (make, side, colors, flags) in CASES.items():
        if args.only not in (None, name):
            continue
        torch.manual_seed(0)
        print(name)
        try:
            backbone, projector = make(args.out / name)
        except ImportError as error:
            print(f"    left out: {error}")
            continue
        if not compare(args.bagssl, args.out / name, side, colors, flags, backbone, projector):
            failed.append(name)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


main()
