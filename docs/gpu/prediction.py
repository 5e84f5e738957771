"""Predicts a training step of a ResNet on an H100, for docs/gpu/prediction.md, from counts of operations and bytes.

    python3 docs/gpu/prediction.py

Needs only Python, and prints the tables of that page. The rates at the top come from a prototype, or are a share of the card's peak.
"""

CONV = 540e12  # operations per second: the prototype's 6.8e12 in 12.7 ms; the card's peak is 989e12 in bf16
TF32 = 200e12  # matrix products of the projector and the loss; peak 495e12
F32 = 30e12  # products in exact f32, of the Cholesky factors; peak 67e12
PIVOT = 0.1e-6  # seconds for one of the 64 pivots of a tile of the diagonal: two barriers, a root and a line of products
MEMORY = 2.7e12  # bytes per second in kernels that stream through memory; peak 3.35e12
UPLOAD = 40e9  # bytes per second from pinned memory over PCIe 5
LAUNCH = 4e-6  # seconds on the host for a launch through the queue
PLAN = 16e-6  # seconds on the host for a cuDNN plan


def resnet(depth, cifar, side):
    """(outputs, inputs, kernel, side of the output) of each convolution; elements of each block's input and output."""
    blocks = {18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[depth]
    convs, ends = [], []
    if cifar:
        convs.append((64, 3, 3, side))
    else:
        side //= 2
        convs.append((64, 3, 7, side))
        side //= 2
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = width if depth == 18 else 4 * width
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            out = side // stride
            if depth == 18:
                convs += [(width, channels, 3, out), (width, width, 3, out)]
            else:
                convs += [(width, channels, 1, side), (width, width, 3, out), (outputs, width, 1, out)]
            if stride > 1 or channels != outputs:
                convs.append((outputs, channels, 1, out))
            ends.append((channels * side * side, outputs * out * out))
            channels, side = outputs, out
    return convs, ends, channels


def step(depth, cifar, side, batch, projector):
    convs, ends, channels = resnet(depth, cifar, side)
    macs = sum(o * i * k * k * s * s for o, i, k, s in convs)
    # The gradient with respect to the images is not computed.
    first = convs[0][0] * convs[0][1] * convs[0][2] ** 2 * convs[0][3] ** 2
    maps = sum(o * s * s for o, _, _, s in convs)
    weights = sum(o * i * k * k for o, i, k, _ in convs)
    widths = [channels, *projector]
    dense = sum(a * b for a, b in zip(widths, widths[1:]))
    residual = sum(out for _, out in ends)
    inputs = sum(into for into, _ in ends)
    parameters = weights + dense + 4 * sum(o for o, *_ in convs)
    n = len(convs)
    layers = len(projector)
    # A weight each; scale and shift of each norm, which no projector ends with; the last layer's bias.
    norms = n + layers - 1
    tensors = n + layers + 2 * norms + 1
    # The stem's map and its gradient, those of the pool behind it, and where each maximum was.
    pool = 0 if cifar else 64 * batch * (2 * 2 * (side // 2) ** 2 + 2 * (2 + 1) * (side // 4) ** 2)
    parts = [
        # name, operations or bytes, rate, launches
        ("convolutions, three passes", 2 * batch * (3 * macs - first), CONV, 3 * n - 1),
        ("batch norms forward: input read twice, output written, residual read", 2 * batch * (3 * maps + residual), MEMORY, 3 * n),
        # The sign behind a ReLU comes from the input. Behind a residual it comes from the output, which both kernels read.
        ("batch norms backward: gradient and input read twice, gradient written; block outputs read twice, residual gradient written",
         2 * batch * (5 * maps + 3 * residual), MEMORY, 3 * n),
        ("gradient sums at block inputs: two read, one written", 2 * batch * 3 * inputs, MEMORY, len(ends)),
        ("images to bf16, then channels-last, pooling", batch * (4 + 2 + 2 + 2 * 8 / 3) * 3 * side * side + 4 * batch * ends[-1][1] + pool,
         MEMORY, 4 if cifar else 6),
        ("weights packed to bf16, weight gradients unpacked", weights * (4 + 2 + 2 + 4), MEMORY, 2 * n),
        # A launch updates 40 parameters, squares 160 gradients (and another one sums up), or updates 80 running statistics.
        ("AdamW: four read, three written; gradients read again for their squares", 32 * parameters, MEMORY, -(-tensors // 40) + 2 * -(-tensors // 160) + -(-2 * norms // 80)),
        # A product in each pass, six kernels for a norm, and two for the bias.
        ("projector", 6 * batch * dense, TF32, 3 * layers + 6 * (layers - 1) + 2),
        # As the CUDA stub counts them.
        ("covariance loss, similarity, metrics", 6 * batch * projector[-1] ** 2, TF32, 60),
    ]
    return parts, convs, maps


def table(title, *arguments):
    batch = arguments[3]
    parts, convs, maps = step(*arguments)
    print(f"## {title}\n\n| part | count | ms | launches |\n|---|---:|---:|---:|")
    total = launches = 0
    for name, count, rate, number in parts:
        # A kernel that moves almost no data takes 3 microseconds.
        seconds = max(count / rate, number * 3e-6)
        unit = "T operations" if rate in (CONV, TF32) else "GB"
        print(f"| {name} | {count / (1e12 if unit[0] == 'T' else 1e9):.2f} {unit} | {seconds * 1e3:.2f} | {number} |")
        total, launches = total + seconds, launches + number
    host = launches * LAUNCH + 3 * len(convs) * PLAN
    print(f"| **GPU time** | | **{total * 1e3:.1f}** | {launches} |")
    print(f"| host time, in parallel | | {host * 1e3:.1f} | |")
    print(f"| upload of the batch, in parallel (training on images only) | | {batch * 12 * arguments[2] ** 2 / UPLOAD * 1e3:.1f} | 1 |")
    longest = max(total, host)
    print(f"\n{batch / longest:,.0f} patches/s. Activations kept for the backward pass: {4 * batch * maps / 2**30:.1f} GiB.\n")


table("ResNet-18, 32x32, batch 2048", 18, True, 32, 2048, [2048, 256])
table("ResNet-18, 32x32, batch 512", 18, True, 32, 512, [2048, 256])
table("ResNet-50, 32x32, batch 2048", 50, True, 32, 2048, [2048, 256])
table("ResNet-50, 224x224, batch 256", 50, False, 224, 256, [2048, 256])


def cholesky(side):
    """Inverse and determinant of a matrix, as source/cholesky.cu and ops/matrices.rs compute them."""
    tiles = -(-side // 64)
    product = 2 * 64 ** 3
    # Step `s` subtracts a product from each tile below it, up to the diagonal, and scales the other tiles of its row and column.
    subtracted = sum(row + 1 for step in range(tiles) for row in range(step + 1, tiles))
    parts = [
        ("factor and its inverse: products of tiles", (subtracted + tiles * (tiles - 1)) * product / F32, 2 * tiles),
        ("tiles of the diagonal, one after the other", tiles * 64 * PIVOT, 0),
        ("launches", (2 * tiles + 2) * 3e-6, 0),
        ("inverse from the factor's: a product", 2 * side ** 3 / F32, 1),
        ("determinant", 0, 1),
    ]
    print(f"## Inverse of a matrix of side {side}\n\n| part | ms | launches |\n|---|---:|---:|")
    for name, seconds, number in parts:
        print(f"| {name} | {seconds * 1e3:.2f} | {number or ''} |".replace("|  |", "| |"))
    print(f"| **GPU time** | **{sum(seconds for _, seconds, _ in parts) * 1e3:.1f}** | {sum(number for *_, number in parts)} |\n")


cholesky(2048)
