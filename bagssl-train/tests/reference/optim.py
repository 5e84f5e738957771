"""Reference values for the optimizers and the schedule. Writes optim.json.

SGD and AdamW are torch's own; LARS is written out here in its two published forms. Run with torch installed:
python optim.py
"""

import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "bagssl-core" / "tests" / "reference"))

from common import Inputs, made_by, write  # noqa: E402


class LarsAroundSgd(torch.optim.SGD):
    """LARS as in EMP-SSL: changes the gradients of matrices, then SGD without decay. Vectors are left to SGD."""

    def __init__(self, params, eta, weight_decay, **options):
        super().__init__(params, weight_decay=0.0, **options)
        self.eta, self.decay, self.factors = eta, weight_decay, []

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                size, slope = p.norm(), p.grad.norm()
                if p.ndim > 1 and size > 0 and slope > 0:
                    factor = self.eta * size / (slope + self.decay * size + 1e-8)
                    factor = min(factor / group["lr"], torch.tensor(1.0))
                    p.grad = factor * (p.grad + self.decay * p)
                    self.factors.append(factor)
                elif p.ndim > 1:
                    self.factors.append(torch.tensor(1.0))
        super().step()


class LarsWithMomentum(torch.optim.Optimizer):
    """LARS as in VICReg: momentum after the adaption, no clipping. Vectors get neither adaption nor decay."""

    def __init__(self, params, lr, momentum, eta, weight_decay):
        super().__init__(params, {"lr": lr, "momentum": momentum, "eta": eta, "weight_decay": weight_decay})
        self.factors = []

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                change = p.grad
                if p.ndim > 1:
                    change = change + group["weight_decay"] * p
                    size, slope = p.norm(), change.norm()
                    factor = group["eta"] * size / slope if size > 0 and slope > 0 else torch.tensor(1.0)
                    self.factors.append(factor)
                    change = change * factor
                memory = self.state[p].setdefault("momentum", torch.zeros_like(p))
                memory.mul_(group["momentum"]).add_(change)
                p.sub_(group["lr"] * memory)


def run(name, optimizer, settings, start, gradients):
    """The parameters after each step."""
    weight, bias = (value.clone().requires_grad_() for value in start)
    stepper = optimizer([weight, bias], **settings)
    steps = []
    for weight_grad, bias_grad in gradients:
        weight.grad, bias.grad = weight_grad.clone(), bias_grad.clone()
        stepper.step()
        steps.append({"weight": weight.detach().clone(), "bias": bias.detach().clone()})
        if hasattr(stepper, "factors"):
            steps[-1]["weight_factor"] = stepper.factors[-1]
    return {
        "name": name,
        "settings": settings,
        "weight": start[0],
        "bias": start[1],
        "gradients": [{"weight": weight_grad, "bias": bias_grad} for weight_grad, bias_grad in gradients],
        "after": steps,
    }


def schedule(base, total, warm_up, floor):
    def rate(step):
        if step < warm_up:
            return base * step / warm_up
        share = (step - warm_up) / (total - warm_up)
        return floor + (base - floor) * 0.5 * (1 + math.cos(math.pi * share))

    return {
        "base": base,
        "total": total,
        "warm_up": warm_up,
        "floor": floor,
        "formula": "base * step / warm_up if step < warm_up, else floor + (base - floor) * (1 + cos(pi * t)) / 2 with "
        "t = (step - warm_up) / (total - warm_up); floor is a rate, not a share",
        "rates": [rate(step) for step in range(total + 1)],
    }


def main():
    inputs = Inputs(23)
    start = (inputs.normal(3, 5), inputs.normal(4))
    gradients = [(inputs.normal(3, 5), inputs.normal(4)) for _ in range(4)]
    # The third gradient is so small that the clipping of LARS holds.
    gradients[2] = (inputs.normal(3, 5, std=1 / 256, grid=4096), inputs.normal(4, std=1 / 256, grid=4096))
    zeros = (torch.zeros(3, 5), start[1])
    rests = [gradients[0], (torch.zeros(3, 5), torch.zeros(4)), gradients[1], gradients[3]]

    sgd = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}
    adamw = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.05}
    around = {"lr": 0.3, "momentum": 0.9, "nesterov": True, "eta": 0.005, "weight_decay": 1e-4}
    within = {"lr": 0.3, "momentum": 0.9, "eta": 0.001, "weight_decay": 1e-6}
    SGD, AdamW = torch.optim.SGD, torch.optim.AdamW
    cases = [
        run("sgd", SGD, sgd, start, gradients),
        run("sgd_strong_decay", SGD, sgd | {"weight_decay": 0.2}, start, gradients),
        run("sgd_plain", SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01}, start, gradients),
        run("adamw", AdamW, adamw, start, gradients),
        run("adamw_strong_decay", AdamW, adamw | {"weight_decay": 2.0}, start, gradients),
        run("lars_clipped", LarsAroundSgd, around, start, gradients),
        run("lars_clipped_strong_decay", LarsAroundSgd, around | {"eta": 0.1, "weight_decay": 0.2}, start, gradients),
        run("lars_clipped_from_zero", LarsAroundSgd, around, zeros, gradients),
        run("lars_clipped_zero_gradient", LarsAroundSgd, around | {"weight_decay": 0.2}, start, rests),
        run("lars", LarsWithMomentum, within, start, gradients),
        run("lars_strong_decay", LarsWithMomentum, within | {"eta": 0.1, "weight_decay": 0.2}, start, gradients),
        run("lars_from_zero", LarsWithMomentum, within, zeros, gradients),
        run("lars_zero_gradient", LarsWithMomentum, within | {"weight_decay": 0.0}, start, rests),
    ]
    clipped = [float(step["weight_factor"]) for step in cases[5]["after"]]
    assert [factor == 1 for factor in clipped] == [False, False, True, False], clipped
    content = {
        "made_by": made_by(__file__),
        "notes": {
            "sgd": "torch.optim.SGD: the decay is added to the gradient, of the vector too",
            "adamw": "torch.optim.AdamW: decoupled decay, of the vector too",
            "lars_clipped": "around SGD. Matrix: factor = min(eta |p| / (|g| + weight_decay |p| + 1e-8) / lr, 1), "
            "g <- factor (g + weight_decay p); if |p| or |g| is 0, g stays as it is (no decay). Vector: g stays. "
            "Then torch.optim.SGD without decay",
            "lars": "with its own momentum. Matrix: g <- g + weight_decay p, then g <- q g with q = eta |p| / |g|, or 1 if |p| "
            "or |g| is 0. Vector: g stays. Then m <- momentum m + g (m is 0 at first), p <- p - lr m",
            "weight_factor": "the factor, or q, of the matrix in that step; 1 where there is none",
            "after": "the parameters after each step; the gradients are given, not computed",
        },
        "optimisers": cases,
        "schedule": schedule(base=0.3, total=20, warm_up=5, floor=0.001 * 0.3),
        "schedule_without_warm_up": schedule(base=0.3, total=20, warm_up=0, floor=0.0),
    }
    write(__file__, content)


if __name__ == "__main__":
    main()
