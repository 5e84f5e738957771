"""One training step of a tiny network: outputs, loss and the gradients of all parameters. Writes step.json.

Run with torch installed: python step.py
"""

import torch
from torch import nn

from common import Inputs, largest_difference, made_by, write


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return x.mean([2, 3])


def projector():
    return nn.Sequential(nn.Linear(6, 5, bias=False), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 4))


def fill(net, inputs):
    """Exact values for all parameters and running statistics."""
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
                value.copy_(inputs.uniform(*value.shape, low=0.5, high=1.5))
            else:
                value.copy_(inputs.normal(*value.shape, std=0.5))


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items() if "num_batches" not in name}


def statistics(net):
    return {name: value for name, value in state(net).items() if ".running_" in name}


def main():
    inputs = Inputs(21)
    nets = {"encoder": Encoder(), "projector": projector()}
    for net in nets.values():
        fill(net, inputs)
    x = inputs.normal(6, 3, 8, 10).requires_grad_()
    upstream = inputs.normal(6, 4)
    before = {name: state(net) for name, net in nets.items()}

    kinks = []
    for net in nets.values():
        for module in net.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.register_forward_hook(lambda _module, _input, output: kinks.append(output.abs().min()))

    embedding = nets["encoder"](x)
    projection = nets["projector"](embedding)
    loss = (projection * upstream).sum()
    loss.backward()
    assert len(kinks) == 3 and min(kinks) > 1e-5, "an entry sits on a ReLU's kink"
    gradients = {name: {key: p.grad for key, p in net.named_parameters()} for name, net in nets.items()}
    after = {name: statistics(net) for name, net in nets.items()}

    # Training mode does not use running statistics, so the updates below do not matter.
    parameters = [p for net in nets.values() for p in net.parameters()] + [x]
    error = largest_difference(
        lambda: (nets["projector"](nets["encoder"](x)) * upstream).sum(), parameters, [p.grad for p in parameters]
    )
    assert error < 1e-6, error

    for name, net in nets.items():
        net.load_state_dict(after[name], strict=False)
        net.eval()
    eval_embedding = nets["encoder"](x)
    content = {
        "made_by": made_by(__file__),
        "notes": {
            "network": "encoder: conv1 (3x3, stride 1, padding 1), bn1, ReLU, conv2 (3x3, stride 2, padding 1), bn2, ReLU, "
            "mean over the map; projector: 0 linear without bias, 1 batch norm, ReLU, 3 linear with bias; "
            "batch norm with epsilon 1e-5 and momentum 0.1",
            "loss": "sum(projection * output_grad), all in training mode",
            "running_after": "the running statistics after this one step",
            "eval": "evaluation mode after the step, with running_after and unchanged parameters",
        },
        "finite_difference_error": error,
        "x": x,
        "output_grad": upstream,
        "parameters": before,
        "embedding": embedding,
        "projection": projection,
        "loss": loss,
        "gradients": gradients,
        "x_grad": x.grad,
        "running_after": after,
        "eval": {"embedding": eval_embedding, "projection": nets["projector"](eval_embedding)},
    }
    write(__file__, content)


if __name__ == "__main__":
    main()
