#!/usr/bin/env python3
"""Training side by side on one GPU: `bagssl bench train --backend cuda` and PyTorch, the same networks, in one run.

    python3 docs/compare/train.py ./bagssl [--rounds 3] [--only SUBSTRING] [--no-compile] [--device cuda]

Both train a ResNet and a projector with VICReg over two patches of each image and AdamW (the recipe `bagssl-vicreg`), on
noise: bf16 maps, f32 weights; PyTorch with channels_last, autocast and fused AdamW, eager and compiled, the better of which
counts. Each row is measured in rounds; in a round its engines run one after the other, each in a process of its own. A
figure is the median over the rounds. Prints a Markdown table.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

# name, architecture, side, batch, what is measured
ROWS = [
    ("ResNet-18, 32x32, batch 2048", "resnet18-cifar", 32, 2048, "train"),
    ("ResNet-18, 32x32, batch 512", "resnet18-cifar", 32, 512, "train"),
    ("ResNet-50, 224x224, batch 256", "resnet50", 224, 256, "train"),
    ("ResNet-50, CIFAR stem, 32x32, batch 2048", "resnet50-cifar", 32, 2048, "train"),
    ("inference ResNet-18, 32x32, batch 2048", "resnet18-cifar", 32, 2048, "infer"),
]
PROJECTOR = [2048, 256]
STEPS = 30
UNTIMED = 10


def resnet(arch):
    """torchvision's ResNets, written down here since torchvision may be missing."""
    from torch import nn

    cifar = arch.endswith("-cifar")
    deep = arch.startswith("resnet50")
    blocks = [3, 4, 6, 3] if deep else [2, 2, 2, 2]

    def conv(inputs, outputs, kernel, stride=1):
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)

    class Block(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            outputs = 4 * width if deep else width
            sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
            if not deep:
                sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
            self.convs = nn.ModuleList(conv(*size) for size in sizes)
            self.norms = nn.ModuleList(nn.BatchNorm2d(size[1]) for size in sizes)
            self.shortcut = None
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

        def forward(self, x):
            y = x
            for index, (one, norm) in enumerate(zip(self.convs, self.norms)):
                y = norm(one(y))
                if index + 1 < len(self.convs):
                    y = y.relu()
            return (y + (x if self.shortcut is None else self.shortcut(x))).relu()

    layers = [conv(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    if not cifar:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(blocks):
        for index in range(count):
            width = 64 << stage
            layers.append(Block(inputs, width, 2 if stage > 0 and index == 0 else 1))
            inputs = 4 * width if deep else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), inputs


def vicreg(projections):
    import torch

    z = projections.float().unflatten(0, (-1, 2))
    images, patches, dim = z.shape
    invariance = (z[:, 0] - z[:, 1]).square().mean()
    centered = z - z.mean(0)
    deviation = (centered.square().sum(0) / (images - 1) + 1e-4).sqrt()
    variance = (1 - deviation).relu().mean()
    sets = centered.transpose(0, 1)
    covariance = sets.transpose(1, 2) @ sets / (images - 1)
    off = covariance * (1 - torch.eye(dim, device=z.device))
    return 25 * invariance + 25 * variance + off.square().sum() * 2 / (patches * dim)


def torch_child(arch, side, batch, what, mode, device):
    """One measurement, printed as JSON."""
    import torch
    from torch import nn

    begun = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    encoder, dim = resnet(arch)
    projector = nn.Sequential(
        nn.Linear(dim, PROJECTOR[0]), nn.BatchNorm1d(PROJECTOR[0]), nn.ReLU(inplace=True), nn.Linear(*PROJECTOR))
    model = (nn.Sequential(encoder, projector) if what == "train" else encoder).to(device)
    model = model.to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    bf16 = torch.autocast(device, torch.bfloat16)
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    if what == "train":
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-4, fused=device == "cuda")

        def loss():
            with bf16:
                projections = model(x)
            return vicreg(projections)

        forward = loss if mode == "eager" else torch.compile(loss, mode=None if mode == "compiled" else mode)

        def step():
            optimizer.zero_grad(set_to_none=True)
            forward().backward()
            optimizer.step()
    else:
        # Batch norms folded into the convolutions before them, weights in bf16.
        model.eval()
        for module in model.modules():
            pairs = list(zip(module.convs, module.norms)) if hasattr(module, "convs") else []
            for at, (conv, norm) in enumerate(pairs):
                module.convs[at], module.norms[at] = torch.nn.utils.fuse_conv_bn_eval(conv, norm), nn.Identity()
            if getattr(module, "shortcut", None) is not None:
                module.shortcut = torch.nn.utils.fuse_conv_bn_eval(*module.shortcut)
        model[0], model[1] = torch.nn.utils.fuse_conv_bn_eval(model[0], model[1]), nn.Identity()
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
        forward = model if mode == "eager" else torch.compile(model, mode=None if mode == "compiled" else mode)

        def step():
            with torch.no_grad():
                forward(x)

    step()
    wait()
    first = time.perf_counter() - begun
    for _ in range(UNTIMED):
        step()
    wait()
    runs = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(STEPS // 3):
            step()
        wait()
        runs.append((time.perf_counter() - begun) / (STEPS // 3))
    memory = torch.cuda.max_memory_reserved() if device == "cuda" else None
    rate = batch / statistics.median(runs)
    print(json.dumps({"patches_per_second": rate, "first_step_seconds": first, "peak_memory_bytes": memory}))


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"failed ({done.returncode}): {' '.join(command)}\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(binary, arch, side, batch, what, backend):
    common = ["--backend", backend, "--arch", arch, "--size", str(side), "--batch", str(batch), "--json"]
    if what == "infer":
        return run([binary, "bench", "infer", *common])
    projector = ",".join(map(str, PROJECTOR))
    recipe = ["--preset", "bagssl-vicreg", "--projector", projector, "--patches", "2", "--steps", str(STEPS)]
    return run([binary, "bench", "train", *common, *recipe])


def median(results, key):
    values = [result[key] for result in results if result and result.get(key) is not None]
    return statistics.median(values) if values else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batch", type=int, help="another batch for all rows")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        arch, side, batch, what, mode = args.child
        return torch_child(arch, int(side), int(batch), what, mode, args.device)
    if not args.binary:
        parser.error("expected the program bagssl")
    modes = ["eager"] if args.no_compile else ["eager", "compiled", "reduce-overhead"]
    backend = "cuda" if args.device == "cuda" else "ndarray"
    print("| work | bagssl | " + " | ".join(f"PyTorch {mode}" for mode in modes) + " | ratio to the best | first step, s: "
          "bagssl, PyTorch | peak memory, MiB: bagssl, PyTorch | ratio |")
    print("|---" * (6 + len(modes)) + "|")
    for name, arch, side, batch, what in ROWS:
        if args.only not in name:
            continue
        batch = args.batch or batch
        results = {mode: [] for mode in ["bagssl", *modes]}
        for _ in range(args.rounds):
            results["bagssl"].append(ours(args.binary, arch, side, batch, what, backend))
            for mode in modes:
                child = [arch, str(side), str(batch), what, mode]
                results[mode].append(run([sys.executable, __file__, "--device", args.device, "--child", *child]))
        rates = {mode: median(of, "patches_per_second") for mode, of in results.items()}
        best = max((mode for mode in modes if rates[mode]), key=lambda mode: rates[mode], default=None)
        shown = lambda value, form="{:,.0f}": "-" if value is None else form.format(value)
        ratio = lambda a, b: a / b if a and b else None
        first = [median(results[mode], "first_step_seconds") for mode in ["bagssl", best] if mode]
        memory = [median(results[mode], "peak_memory_bytes") for mode in ["bagssl", best] if mode]
        mib = [value and value / 2**20 for value in memory]
        cells = [name, *(shown(rates[mode]) for mode in ["bagssl", *modes]),
                 shown(ratio(rates["bagssl"], best and rates[best]), "{:.2f}x"),
                 ", ".join(shown(value, "{:.1f}") for value in first),
                 ", ".join(shown(value) for value in mib),
                 shown(ratio(*memory) if len(memory) == 2 else None, "{:.2f}x")]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
