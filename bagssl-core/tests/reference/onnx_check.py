"""Compares exported models in ONNX Runtime with PyTorch, using the weights of the same safetensors file.

Needs torch, torchvision, safetensors, onnx and onnxruntime. Writes only temporary files:
    cargo build --release -p bagssl-core --features onnx --example export_onnx
    python onnx_check.py ../../../target/release/examples/export_onnx

PyTorch runs in float64, with batch norm as a separate layer. Differences are the largest difference of an entry,
relative to the largest entry. ONNX Runtime and PyTorch in float32 should be about equally far from float64.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

# An epsilon with an error of 10 % changes embeddings by 7e-6 (resnet18-cifar) and 2e-5 (bagnet33).
TOLERANCE = 4e-6
FIELD, STRIDE = 33, 8


class BagBlock(torchvision.models.resnet.Bottleneck):
    """A bottleneck without padding. Its shortcut is cropped to the output's size."""

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(y + shortcut[:, :, : y.shape[2], : y.shape[3]])


def bagnet33():
    """A ResNet-50 with 3x3 kernels in its stem and in each stage's first block, and 1x1 kernels elsewhere."""
    net = torchvision.models.resnet.ResNet(BagBlock, [3, 4, 6, 3])
    net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, bias=False), nn.Identity()
    for stage, stride in zip([net.layer1, net.layer2, net.layer3, net.layer4], [2, 2, 2, 1]):
        for index, block in enumerate(stage):
            width = block.conv2.in_channels
            kernel, step = (3, stride) if index == 0 else (1, 1)
            block.conv2 = nn.Conv2d(width, width, kernel, step, bias=False)
        first = stage[0].downsample[0]
        stage[0].downsample[0] = nn.Conv2d(first.in_channels, first.out_channels, 1, stride, bias=False)
    return net


def encoder(name):
    if name == "bagnet33":
        net = bagnet33()
    else:
        net = getattr(torchvision.models, name.removesuffix("-cifar"))(weights=None)
    if name.endswith("-cifar"):
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    net.fc = nn.Identity()
    return net


def projector(dim):
    return nn.Sequential(nn.Linear(dim, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 32))


def fill(net, tensors, prefix):
    values = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    missing, unexpected = net.load_state_dict(values, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return net.eval()


def last_map(net, x):
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


class Subject:
    """An architecture with random weights: its file, its models, and PyTorch's networks."""

    def __init__(self, program, folder, name):
        self.program, self.name = program, name
        self.checkpoint, self.model = folder / f"{name}.safetensors", folder / f"{name}.onnx"
        self.export("--random", name)
        tensors = load_file(self.checkpoint)
        self.encoder = fill(encoder(name), tensors, "encoder.")
        dim = self.encoder.layer4[-1].bn2.num_features * self.encoder.layer4[-1].expansion
        self.projector = fill(projector(dim), tensors, "projector.")

    def export(self, *options):
        subprocess.run([self.program, self.checkpoint, self.model, *options], check=True)

    def session(self, *options):
        self.export(*options)
        once = self.model.read_bytes()
        self.export(*options)
        assert once == self.model.read_bytes(), "the same checkpoint gave other bytes"
        onnx.checker.check_model(onnx.load_from_string(once), full_check=True)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        return onnxruntime.InferenceSession(once, settings, providers=["CPUExecutionProvider"])

    def torch(self, x, output, dtype=torch.float64):
        network = self.encoder.to(dtype), self.projector.to(dtype)
        x = torch.from_numpy(x).to(dtype)
        with torch.no_grad():
            if output == "dense":
                return last_map(network[0], x).double().numpy()
            features = network[0](x)
            if output != "embedding":
                features = network[1][: 3 if output == "first_layer" else 4](features)
            return features.double().numpy()


def difference(got, expected):
    assert got.shape == expected.shape, (got.shape, expected.shape)
    return float(numpy.abs(got - expected).max() / numpy.abs(expected).max())


def image(*shape):
    return numpy.random.default_rng(sum(shape)).standard_normal(shape).astype(numpy.float32)


def compare(subject, options, output, shapes):
    """Prints one line per shape. Returns the largest difference."""
    session, worst = subject.session(*options), 0.0
    for shape in shapes:
        x = image(*shape)
        got, expected = session.run(None, {"input": x})[0], subject.torch(x, output)
        ours, theirs = difference(got, expected), difference(subject.torch(x, output, torch.float32), expected)
        # For comparison: the difference that a mistake would cause.
        mirrored = subject.torch(numpy.ascontiguousarray(x[:, :, :, ::-1]), output)
        size = options[-1] if "--size" in options else "any"
        line = f"{subject.name:<15}{output:<12}{size:<7}{str(list(shape)):<16}"
        print(f"{line}{ours:10.1e}{theirs:10.1e}{difference(mirrored, expected):10.1e}")
        worst = max(worst, ours)
    return worst


def squares(subject):
    """Compares each position of the dense model with the single-patch model on its crop, and the mean over all."""
    dense, single = subject.session("--dense"), subject.session("--tap", "embedding")
    worst, x = 0.0, image(2, 3, 52, 71)
    places = dense.run(None, {"input": x})[0]
    rows, columns = ((length - FIELD) // STRIDE + 1 for length in x.shape[2:])
    assert places.shape == (2, 2048, rows, columns), places.shape
    for row in range(rows):
        for column in range(columns):
            top, left = row * STRIDE, column * STRIDE
            crop = x[:, :, top : top + FIELD, left : left + FIELD]
            worst = max(worst, difference(single.run(None, {"input": crop})[0], places[:, :, row, column]))
    mean = difference(places.mean((2, 3)), single.run(None, {"input": x})[0])
    print(f"{subject.name}: {rows}x{columns} places against their crops: {worst:.1e}; their mean: {mean:.1e}")
    return max(worst, mean)


def refuses(session, *shape):
    try:
        session.run(None, {"input": image(*shape)})
    except Exception as error:
        return print(f"refused at {list(shape)}: {str(error).splitlines()[0][:90]}")
    sys.exit(f"expected a refusal of an input of {list(shape)}")


def main():
    program = Path(sys.argv[1]).resolve()
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}")
    print(f"{'network':<15}{'output':<12}{'size':<7}{'input':<16}{'ONNX':>10}{'float32':>10}{'mirrored':>10}")
    with tempfile.TemporaryDirectory() as folder:
        folder, worst = Path(folder), []
        small = Subject(program, folder, "resnet18-cifar")
        for tap in ["embedding", "first_layer", "projection"]:
            worst.append(compare(small, ["--tap", tap], tap, [(2, 3, 32, 32), (3, 3, 17, 40)]))
        worst.append(compare(small, ["--tap", "embedding", "--size", "24x40"], "embedding", [(5, 3, 24, 40)]))
        large = Subject(program, folder, "resnet50")
        worst.append(compare(large, ["--tap", "embedding"], "embedding", [(2, 3, 40, 56), (1, 3, 97, 33)]))
        bagnet = Subject(program, folder, "bagnet33")
        worst.append(compare(bagnet, ["--tap", "embedding"], "embedding", [(3, 3, 33, 33), (2, 3, 41, 60)]))
        worst.append(compare(bagnet, ["--dense"], "dense", [(2, 3, 33, 33), (2, 3, 52, 71), (1, 3, 97, 65)]))
        worst.append(compare(bagnet, ["--dense", "--size", "52x71"], "dense", [(2, 3, 52, 71)]))
        worst.append(squares(bagnet))
        refuses(bagnet.session("--dense"), 1, 3, 32, 52)
        refuses(bagnet.session("--dense", "--size", "52x71"), 1, 3, 52, 72)
    print(f"largest difference: {max(worst):.1e}")
    if not max(worst) < TOLERANCE:
        sys.exit(f"expected less than {TOLERANCE}")


if __name__ == "__main__":
    main()
