"""Reference values for the losses: TCR with cosine invariance, VICReg, NT-Xent and the spectral loss for bags. Writes
losses.json.

Run with torch installed: python losses.py
"""

import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[3] / "bagssl-core" / "tests" / "reference"))

from common import Inputs, largest_difference, made_by, write  # noqa: E402

EPSILON = 0.2
TCR_WEIGHT = 200.0
VICREG_WEIGHTS = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
VARIANCE_EPSILON = 1e-4
TEMPERATURE = 0.5
LAMBDA = 0.5


def unit(z):
    return F.normalize(z, dim=-1)


def cosine_invariance(z):
    """z is [B, P, d]; the mean cosine of a patch and the mean of the unit patches of its image."""
    rows = unit(z)
    return F.cosine_similarity(rows, rows.mean(1, keepdim=True), dim=-1).mean()


def coding_rate(rows):
    """rows is [B, d], of unit length."""
    count, dim = rows.shape
    return -0.5 * torch.logdet(torch.eye(dim) + dim / (count * EPSILON) * rows.T @ rows)


def tcr(z):
    rows = unit(z)
    return torch.stack([coding_rate(rows[:, patch]) for patch in range(z.shape[1])]).mean()


def tcr_bound(count, dim):
    if count <= dim:
        return -0.5 * count * math.log(1 + dim / (count * EPSILON))
    return -0.5 * dim * math.log(1 + 1 / EPSILON)


def two_branches(a, b):
    """VICReg's terms as published, for two branches [B, d]."""
    count, dim = a.shape
    invariance = F.mse_loss(a, b)
    a, b = a - a.mean(0), b - b.mean(0)
    hinges = [F.relu(1 - torch.sqrt(x.var(0) + VARIANCE_EPSILON)).mean() for x in (a, b)]
    covariances = [x.T @ x / (count - 1) for x in (a, b)]
    squares = [(c - torch.diag(torch.diag(c))).pow(2).sum() / dim for c in covariances]
    return {"invariance": invariance, "variance": sum(hinges) / 2, "covariance": sum(squares)}


def bag(z):
    """VICReg's terms for z of [B, P, d]."""
    count, patches, dim = z.shape
    pairs = [(i, j) for i in range(patches) for j in range(i + 1, patches)]
    invariance = torch.stack([F.mse_loss(z[:, i], z[:, j]) for i, j in pairs]).mean()
    variance = F.relu(1 - torch.sqrt(z.var(0) + VARIANCE_EPSILON)).mean()
    centered = z - z.mean(0)
    covariance = torch.einsum("bpi,bpj->pij", centered, centered) / (count - 1)
    off_diagonal = covariance * (1 - torch.eye(dim))
    return {
        "invariance": invariance,
        "variance": variance,
        "covariance": off_diagonal.pow(2).sum() / dim * 2 / patches,
    }


def nt_xent(z):
    """One cross entropy for each ordered pair of patches of an image, against the patches of all other images."""
    rows = unit(z)
    count, patches, _ = z.shape
    losses, cosines = [], []
    for image in range(count):
        others = torch.cat([rows[other] for other in range(count) if other != image])
        for a in range(patches):
            for b in range(patches):
                if a != b:
                    anchor = rows[image, a]
                    logits = torch.cat([(anchor @ rows[image, b])[None], others @ anchor]) / TEMPERATURE
                    losses.append(F.cross_entropy(logits[None], torch.tensor([0])))
                    cosines.append(anchor @ rows[image, b])
    return {"loss": torch.stack(losses).mean(), "invariance": torch.stack(cosines).mean()}


def nt_xent_of_two_branches(a, b):
    """As published: each of 2 B patches against all but itself, its partner the right answer."""
    count = a.shape[0]
    rows = unit(torch.cat([a, b]))
    logits = (rows @ rows.T / TEMPERATURE).masked_fill(torch.eye(2 * count, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(logits, torch.arange(2 * count).roll(count))


def spectral(z):
    count, patches, _ = z.shape
    products = torch.einsum("iad,jbd->iajb", z, z)
    same = [products[i, a, i, b] for i in range(count) for a in range(patches) for b in range(patches) if a != b]
    apart = [products[i, :, j, :].pow(2).mean() for i in range(count) for j in range(count) if i != j]
    return {"invariance": torch.stack(same).mean(), "repulsion": torch.stack(apart).mean()}


def with_gradients(z, terms, weights):
    """The terms, their weighted sum, and the gradients of each with respect to z, checked by finite differences."""

    def values():
        found = terms(z)
        return found | {"total": sum(weights[name] * value for name, value in found.items())}

    found = values()
    gradients = {name: torch.autograd.grad(value, [z], retain_graph=True)[0] for name, value in found.items()}
    errors = [largest_difference(lambda: values()[name], [z], [gradient]) for name, gradient in gradients.items()]
    assert max(errors) < 1e-6, errors
    return {
        "z": z,
        **found,
        **{"z_grad_of_" + name: gradient for name, gradient in gradients.items()},
        "finite_difference_error": max(errors),
    }


def tcr_case(inputs, shape):
    # What the patches of an image share, and what is their own.
    z = (inputs.normal(shape[0], 1, shape[2]) + inputs.normal(*shape, std=0.5)).requires_grad_()
    rows = unit(z)
    for patch in range(shape[1]):
        side = rows[:, patch] @ rows[:, patch].T * shape[2] / (shape[0] * EPSILON)
        torch.testing.assert_close(coding_rate(rows[:, patch]), -0.5 * torch.logdet(torch.eye(shape[0]) + side))
    terms = lambda z: {"invariance": cosine_invariance(z), "tcr": tcr(z)}  # noqa: E731
    case = with_gradients(z, terms, {"invariance": -TCR_WEIGHT, "tcr": 1.0})
    assert case["tcr"] > tcr_bound(shape[0], shape[2])
    return case | {"tcr_bound": tcr_bound(shape[0], shape[2])}


def vicreg_case(inputs, shape):
    # Deviations on both sides of 1, so that the hinge is open for some dimensions and closed for others.
    spread = torch.linspace(0.25, 2.0, shape[2])
    z = ((inputs.normal(shape[0], 1, shape[2]) + inputs.normal(*shape, std=0.5)) * spread * 64).round() / 64
    z.requires_grad_()
    deviations = torch.sqrt(z.var(0) + VARIANCE_EPSILON)
    assert (deviations < 0.9).any() and (deviations > 1.1).any() and ((deviations - 1).abs() > 1e-3).all(), deviations
    case = with_gradients(z, bag, VICREG_WEIGHTS)
    if shape[1] == 2:
        published = two_branches(z[:, 0], z[:, 1])
        for name, value in published.items():
            torch.testing.assert_close(case[name], value, rtol=1e-12, atol=1e-12)
        case["two_branches"] = published
    return case


def simclr_case(inputs, shape):
    z = (inputs.normal(shape[0], 1, shape[2]) + inputs.normal(*shape, std=0.5)).requires_grad_()
    case = with_gradients(z, nt_xent, {"loss": 1.0, "invariance": 0.0})
    if shape[1] == 2:
        torch.testing.assert_close(case["loss"], nt_xent_of_two_branches(z[:, 0], z[:, 1]), rtol=1e-12, atol=1e-12)
    return case


def spectral_case(inputs, shape):
    z = (inputs.normal(shape[0], 1, shape[2]) + inputs.normal(*shape, std=0.5)).requires_grad_()
    return with_gradients(z, spectral, {"invariance": -1.0, "repulsion": LAMBDA})


def main():
    inputs = Inputs(22)
    content = {
        "made_by": made_by(__file__),
        "notes": {
            "z": "projections [B images, P patches, d], not normalized",
            "z_grad_of_X": "gradient of X with respect to z",
            "finite_difference_error": "largest difference of any of these gradients from central differences (float64, "
            "step 1e-6), as a share of the gradient's largest entry",
        },
        "tcr": {
            "weight": TCR_WEIGHT,
            "epsilon": EPSILON,
            "formulas": {
                "u": "z / |z|, row by row",
                "invariance": "mean over images and patches of cos(u, mean of u over the patches of the image)",
                "tcr": "mean over patch indices of -1/2 logdet(I + d / (B epsilon) U^T U), U the [B, d] rows of a patch index",
                "total": "-weight * invariance + tcr",
                "tcr_bound": "the lowest tcr: -B/2 ln(1 + d / (B epsilon)) if B <= d, else -d/2 ln(1 + 1 / epsilon)",
            },
            "cases": [tcr_case(inputs, shape) for shape in [(6, 3, 4), (3, 4, 5), (5, 2, 5)]],
        },
        "vicreg": {
            "weights": VICREG_WEIGHTS,
            "epsilon": VARIANCE_EPSILON,
            "formulas": {
                "invariance": "mean over unordered pairs of patches of the mean squared difference over all entries",
                "variance": "mean over patch indices and dimensions of max(0, 1 - sqrt(unbiased variance over images + epsilon))",
                "covariance": "2 / P * sum over patch indices of (sum of squared off-diagonal covariances over images) / d",
                "total": "25 invariance + 25 variance + 1 covariance",
                "two_branches": "for P = 2, the published loss of two branches, computed on its own; equal to the terms above",
            },
            "cases": [vicreg_case(inputs, shape) for shape in [(6, 2, 4), (4, 2, 5), (5, 3, 4), (3, 4, 5)]],
        },
        "simclr": {
            "temperature": TEMPERATURE,
            "formulas": {
                "loss": "mean over ordered pairs a, b of patches of an image of -ln(e_ab / (e_ab + sum of e_ak over the "
                "patches k of other images)), e = exp(cosine / temperature); with P = 2 the published loss, computed on its own",
                "invariance": "mean cosine of these pairs",
            },
            "cases": [simclr_case(inputs, shape) for shape in [(5, 2, 4), (4, 3, 5)]],
        },
        "spectral": {
            "lambda": LAMBDA,
            "formulas": {
                "invariance": "mean product of two different patches of an image",
                "repulsion": "mean squared product of patches of different images",
                "total": "lambda repulsion - invariance",
            },
            "cases": [spectral_case(inputs, shape) for shape in [(5, 2, 4), (4, 3, 5)]],
        },
    }
    write(__file__, content)


if __name__ == "__main__":
    main()
