"""Reference values for single layers: convolution, batch norm, pooling, linear. Writes layers.json.

Run with torch installed: python layers.py
"""

import torch
import torch.nn.functional as F

from common import Inputs, largest_difference, made_by, write

EPSILON = 1e-5
MOMENTUM = 0.1

# batch, inputs, outputs, height, width, kernel, stride, padding; the last three are a number or [vertical, horizontal]
CONVOLUTIONS = {
    "3x3_s1_p1": (2, 3, 4, 5, 7, 3, 1, 1),
    "3x3_s1_p1_one_image": (1, 4, 3, 6, 3, 3, 1, 1),
    "3x3_s2_p1_odd": (2, 3, 5, 7, 9, 3, 2, 1),
    "3x3_s2_p1_even": (2, 3, 2, 6, 8, 3, 2, 1),
    "3x3_s2_p1_even_odd": (3, 2, 4, 8, 5, 3, 2, 1),
    "3x3_s1_p0": (2, 2, 3, 5, 6, 3, 1, 0),
    "1x1_s1_p0": (3, 5, 4, 4, 3, 1, 1, 0),
    "1x1_s2_p0_odd": (2, 3, 4, 5, 7, 1, 2, 0),
    "1x1_s2_p0_even": (2, 4, 3, 6, 4, 1, 2, 0),
    "7x7_s2_p3_odd": (2, 3, 2, 11, 13, 7, 2, 3),
    "7x7_s2_p3_even": (1, 3, 4, 12, 10, 7, 2, 3),
    "3x1_s2x1_p1x0": (2, 3, 2, 5, 7, [3, 1], [2, 1], [1, 0]),
    "2x3_s1x3_p0x1": (2, 2, 3, 4, 8, [2, 3], [1, 3], [0, 1]),
}


def gradients(output, upstream, inputs):
    return torch.autograd.grad((output * upstream).sum(), inputs)


def convolution(inputs, name, case):
    batch, ins, outs, height, width, *window = case
    kernel, stride, padding = (value if isinstance(value, list) else [value] * 2 for value in window)
    x = inputs.normal(batch, ins, height, width).requires_grad_()
    weight = inputs.normal(outs, ins, *kernel, std=0.5).requires_grad_()
    output = F.conv2d(x, weight, stride=stride, padding=padding)
    upstream = inputs.normal(*output.shape)
    x_grad, weight_grad = gradients(output, upstream, [x, weight])
    return {
        "name": name,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "x": x,
        "weight": weight,
        "output": output,
        "output_grad": upstream,
        "x_grad": x_grad,
        "weight_grad": weight_grad,
    }


def batch_norm(inputs, shape, residual, relu):
    """A case of relu?(batch_norm(x) + residual?), in training mode and in evaluation mode."""
    dim = shape[1]
    along = [1, dim] + [1] * (len(shape) - 2)
    x = (inputs.normal(*shape) + inputs.normal(*along, std=2.0)).requires_grad_()
    weight = inputs.uniform(dim, low=0.5, high=1.5).requires_grad_()
    bias = inputs.normal(dim, std=0.5).requires_grad_()
    added = inputs.normal(*shape).requires_grad_() if residual else None
    mean_before, var_before = inputs.normal(dim), inputs.uniform(dim, low=0.5, high=2.0)
    upstream = inputs.normal(*shape)

    def forward(training, mean, var):
        value = F.batch_norm(x, mean, var, weight, bias, training, MOMENTUM, EPSILON)
        value = value + added if residual else value
        return (F.relu(value) if relu else value), value

    mean_after, var_after = mean_before.clone(), var_before.clone()
    output, before_relu = forward(True, mean_after, var_after)
    assert before_relu.abs().min() > 1e-4, "an entry sits on the ReLU's kink"
    asked = [x, weight, bias] + ([added] if residual else [])
    found = gradients(output, upstream, asked)
    error = largest_difference(
        lambda: (forward(True, mean_before.clone(), var_before.clone())[0] * upstream).sum(), asked, found
    )
    assert error < 1e-7, error
    axes = [0] + list(range(2, len(shape)))
    batch_mean, batch_var = x.mean(axes), x.var(axes, unbiased=False)
    count = x.numel() // dim
    unbiased = batch_var * count / (count - 1)
    torch.testing.assert_close(mean_after, 0.9 * mean_before + 0.1 * batch_mean)
    torch.testing.assert_close(var_after, 0.9 * var_before + 0.1 * unbiased)
    case = {
        "relu": relu,
        "x": x,
        "weight": weight,
        "bias": bias,
        "running_mean": mean_before,
        "running_var": var_before,
        "output_grad": upstream,
        "train": {
            "output": output,
            "batch_mean": batch_mean,
            "batch_var": batch_var,
            "running_mean": mean_after,
            "running_var": var_after,
            "x_grad": found[0],
            "weight_grad": found[1],
            "bias_grad": found[2],
        },
        "eval": {"output": forward(False, mean_before, var_before)[0]},
    }
    if residual:
        case["residual"] = added
        case["train"]["residual_grad"] = found[3]
    name = ("residual_" if residual else "plain_") + ("relu" if relu else "linear")
    return {"name": name, **case}


def max_pool(inputs, name, shape, highest=None):
    x = inputs.distinct(*shape)
    x = (x if highest is None else x - x.max() + highest).requires_grad_()
    output = F.max_pool2d(x, 3, stride=2, padding=1)
    upstream = inputs.normal(*output.shape)
    (x_grad,) = gradients(output, upstream, [x])
    return {
        "name": name,
        "kernel": [3, 3],
        "stride": [2, 2],
        "padding": [1, 1],
        "x": x,
        "output": output,
        "output_grad": upstream,
        "x_grad": x_grad,
    }


def global_mean(inputs):
    x = inputs.normal(2, 3, 4, 7).requires_grad_()
    output = x.mean([2, 3])
    upstream = inputs.normal(*output.shape)
    (x_grad,) = gradients(output, upstream, [x])
    return {"name": "global_mean", "x": x, "output": output, "output_grad": upstream, "x_grad": x_grad}


def linear(inputs, name, bias):
    x = inputs.normal(4, 5).requires_grad_()
    weight = inputs.normal(3, 5).requires_grad_()
    case = {"name": name, "x": x, "weight": weight}
    asked = [x, weight]
    if bias:
        case["bias"] = inputs.normal(3).requires_grad_()
        asked.append(case["bias"])
    output = F.linear(x, weight, case.get("bias"))
    upstream = inputs.normal(*output.shape)
    found = gradients(output, upstream, asked)
    case |= {"output": output, "output_grad": upstream, "x_grad": found[0], "weight_grad": found[1]}
    return case | ({"bias_grad": found[2]} if bias else {})


def main():
    inputs = Inputs(20)
    combinations = [(False, False), (False, True), (True, False), (True, True)]
    content = {
        "made_by": made_by(__file__),
        "epsilon": EPSILON,
        "momentum": MOMENTUM,
        "notes": {
            "windows": "kernel, stride and padding are [vertical, horizontal]",
            "gradients": "X_grad is the gradient of sum(output * output_grad) with respect to X",
            "batch_norm": "relu?(weight * (x - mean) / sqrt(var + epsilon) + bias + residual?); train: mean and biased var "
            "of the batch; eval: running_mean and running_var of the case; train.running_* is after one update, "
            "(1 - momentum) * old + momentum * new, with the unbiased variance",
            "max_pool": "padding never wins; no two entries of x are alike",
        },
        "conv2d": [convolution(inputs, name, case) for name, case in CONVOLUTIONS.items()],
        "batch_norm_maps": [batch_norm(inputs, (3, 4, 2, 5), *which) for which in combinations],
        "batch_norm_rows": [batch_norm(inputs, (7, 5), *which) for which in combinations[:2]],
        "max_pool": [
            max_pool(inputs, "odd", (2, 3, 7, 9)),
            max_pool(inputs, "even", (2, 2, 6, 8)),
            max_pool(inputs, "all_negative", (1, 2, 5, 4), highest=-0.5),
        ],
        "global_mean": [global_mean(inputs)],
        "linear": [linear(inputs, "with_bias", True), linear(inputs, "without_bias", False)],
    }
    write(__file__, content)


if __name__ == "__main__":
    main()
