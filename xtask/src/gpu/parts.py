"""The parts of each call, in the order in which they tell the most.

Seconds are those of a call of 230 s: the least that a part needs to be worth a start, and the most that it may take.
"""
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys

import read

PROGRAM = "./bagssl"
# What a training writes.
TRAINING = os.path.abspath("training")
TO_THE_END = 10_000
RESNET18 = ["--arch", "resnet18-cifar", "--size", "32", "--batch", "2048", "--patches", "2", "--preset", "bagssl-vicreg",
            "--projector", "2048,256"]
# Makes errors come where they are made, with their place and cuDNN's words.
DEBUG = {"CUDA_LAUNCH_BLOCKING": "1", "RUST_BACKTRACE": "1", "CUDNN_LOGLEVEL_DBG": "2", "CUDNN_LOGDEST_DBG": "stdout"}


def train(*arguments):
    return [PROGRAM, "bench", "train", "--backend", "cuda", *arguments, "--json"]


def tool(name):
    """A program of CUDA's toolkit."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/cuda/bin")


def installed(name):
    """Whether Python has a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def offers(run, command, option):
    """Whether a command of the program has an option."""
    try:
        done = subprocess.run([PROGRAM, *command, "--help"], capture_output=True, stdin=subprocess.DEVNULL,
                              env=run.environment, timeout=max(0.1, min(10 * run.scale, run.left())))
    except (OSError, subprocess.SubprocessError):
        return False
    return option.encode() in done.stdout


def names_in(folder):
    """The names in a folder; none if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def wheels():
    """The folders of pip's CUDA: of libraries, and of headers."""
    spec = importlib.util.find_spec("nvidia") if installed("nvidia") else None
    roots = list(spec.submodule_search_locations or []) if spec else []
    folders = [os.path.join(root, name) for root in roots for name in names_in(root)]
    libraries = [os.path.join(folder, "lib") for folder in folders if os.path.isdir(os.path.join(folder, "lib"))]
    headers = [folder for folder in folders if os.path.isfile(os.path.join(folder, "include", "cuda_runtime.h"))]
    return libraries, headers


def environment():
    """Prints what the machine is and has."""
    query = "name,driver_version,memory.total,compute_cap,clocks.max.sm,power.limit"
    asked = [("GPU", ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]),
             ("driver's CUDA", ["sh", "-c", "nvidia-smi | grep -o 'CUDA Version: [0-9.]*'"]),
             ("GPU busy with", ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader"]),
             ("kernel", ["uname", "-sr"]), ("glibc", ["getconf", "GNU_LIBC_VERSION"])]
    for name, command in asked:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=15)
            failed = done.returncode != 0
            text = (done.stderr or done.stdout if failed else done.stdout).strip()
        except (OSError, subprocess.SubprocessError) as error:
            failed, text = True, str(error)
        for line in text.splitlines() or ["nothing"]:
            print(f"{'no ' if failed else ''}{name}: {line}", flush=True)
    print(f"cores: {len(os.sched_getaffinity(0))}")
    print(f"Python: {sys.version.split()[0]}")
    if not installed("torch"):
        print("torch: not found")
    for package in importlib.metadata.distributions():
        name = (package.metadata["Name"] or "").lower()
        if name in ("torch", "triton") or name.startswith("nvidia-"):
            print(f"{name}: {package.version}")
    for name in ("ncu", "nsys", "compute-sanitizer", "nvcc"):
        print(f"{name}: {tool(name) or 'not found'}")
    for variable in ("CUDA_PATH", "CUDA_HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES"):
        print(f"{variable}: {os.environ.get(variable) or 'not set'}")
    libraries, headers = wheels()
    for folder in (*libraries, *headers, "/usr/local/cuda/include"):
        print(f"folder: {folder}{'' if os.path.isdir(folder) else ' (not there)'}")
    known = subprocess.run(["sh", "-c", "PATH=$PATH:/sbin ldconfig -p"], capture_output=True, text=True).stdout
    for line in known.splitlines():
        if any(f"lib{name}" in line for name in ("cuda.so", "cudart", "cudnn.so", "cublas", "nvrtc", "nccl")):
            print(f"library: {line.split('=> ')[-1].strip()}")


def doctor(run):
    """Whether the program finds all that it needs; then with the folders of pip's wheels on its path, if it does not."""
    done = run.part("doctor", [PROGRAM, "doctor"], 2, 20, read.doctor)
    if any(line.startswith("cuda ") and "not built in" in line for line in done.lines):
        run.stopped = "the program was built without the feature cuda"
        return False
    if done.ok:
        return True
    libraries, headers = wheels()
    if libraries:
        before = [run.environment["LD_LIBRARY_PATH"]] if run.environment.get("LD_LIBRARY_PATH") else []
        run.environment["LD_LIBRARY_PATH"] = ":".join([*before, *libraries])
        if headers and not os.path.isfile("/usr/local/cuda/include/cuda_runtime.h"):
            run.environment.setdefault("CUDA_PATH", headers[0])
        if run.part("doctor with pip's folders", [PROGRAM, "doctor"], 2, 20, read.doctor).ok:
            return True
    # Neither the folders for kinds of processors nor the names that Windows has.
    pattern = r"^(?!.*/(glibc-hwcaps|tls|x86_64)/).*(lib(cuda|cudnn|cublas|nvrtc|nvJitLink|nccl)[-_a-zA-Z]*\.so|cannot open|error)"
    run.part("loader's trace", [PROGRAM, "doctor"], 2, 20, read.lines(60, pattern), LD_DEBUG="libs")
    run.stopped = "doctor failed"
    return False


def call1(run):
    run.part("environment", [sys.executable, os.path.abspath(__file__), "environment"], 2, 30, read.named)
    if not doctor(run):
        return
    first = [("resnet-small", train("--arch", "resnet-small", "--steps", "3"), 5, 45),
             ("resnet18", train(*RESNET18, "--steps", "10"), 10, 60)]
    done = [(run.part(name, command, least, most, read.figures), command) for name, command, least, most in first]
    wrong = [command for part, command in done if part.outcome in ("failed", "timed out")]
    if wrong:
        run.part("once more, with traces", wrong[0], 5, 45, read.figures, **DEBUG)
    run.part("check", [PROGRAM, "doctor", "--check"], 10, TO_THE_END, read.check)


def torch(run, mode, least, most):
    name = f"torch {mode}"
    if not installed("torch"):
        return run.skip(name, "PyTorch is not installed")
    child = [sys.executable, "train.py", "--child", "resnet18-cifar", "32", "2048", "train", mode]
    return run.part(name, child, least, most, read.figures)


def profile(run):
    """Where the time of a step goes as the program tells, and the milliseconds of each kernel over the launches of about two."""
    path = os.path.join(run.out, "trace.json")
    # The program writes over nothing.
    try:
        if os.path.exists(path):
            os.remove(path)
    except OSError as error:
        run.skip("profile", str(error))
    else:
        program, *arguments, _json = train(*RESNET18, "--steps", "10", "--profile", path)
        run.part("profile", [program, *arguments], 10, 60, read.lines(120))
    ncu = tool("ncu")
    if ncu:
        about = [ncu, "--launch-skip", "1500", "--launch-count", "800", "--metrics", "gpu__time_duration.sum", "--csv",
                 "--clock-control", "none"]
        # Where counters are for administrators alone it tells nothing.
        run.part("ncu", [*about, *train(*RESNET18, "--steps", "10")], 20, 60, read.ncu)
    else:
        run.skip("ncu", "not found")


def call2(run):
    if not doctor(run):
        return
    bench = train(*RESNET18, "--steps", "30")
    run.part("bench", bench, 10, 60, read.figures)
    torch(run, "eager", 15, 45)
    profile(run)
    torch(run, "compiled", 30, 75)
    # In turns with PyTorch, as clocks drift.
    run.part("bench again", bench, 10, 40, read.figures)
    torch(run, "reduce-overhead", 30, 75)


def gpus(run):
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, env=run.environment,
                                timeout=max(0.1, min(15 * run.scale, run.left()))).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def devices(run):
    """The first step of two GPUs beside that of one."""
    names = ["one GPU", "two GPUs"]
    count = gpus(run)
    if count < 2:
        return [run.skip(name, f"{count} GPU") for name in names]
    for number, name in enumerate(names, 1):
        out = os.path.join(TRAINING, f"on-{number}")
        command = [PROGRAM, "train", "--backend", "cuda-f32", "--devices", str(number), "--images", "256", "--patches", "4",
                   "--epochs", "1", "--out", out, "--force", "--json"]
        run.part(name, command, 10, 40, read.losses(os.path.join(out, "metrics.jsonl")))


def call3(run):
    if not doctor(run):
        return
    data = ["--data", run.data] if run.data else []
    golden = [PROGRAM, "bench", "accuracy", "golden.safetensors", "--backend", "cuda", "--least", "0.999"]
    # Of all patches the CPU would make exact embeddings for minutes.
    run.part("golden", [*golden, "--random", "8", "--json", *data], 5, 45, read.accuracy)
    loading = ["--arch", "resnet18-cifar", "--preset", "emp-ssl-cifar", "--images", "100", "--patches", "20", "--steps", "30"]
    run.part("loading", train(*loading, "--loading", *data), 15, 60, read.figures)
    out = os.path.join(TRAINING, "emp-ssl")
    metrics = os.path.join(out, "metrics.jsonl")
    command = [PROGRAM, "train", "--backend", "cuda", "--preset", "emp-ssl-cifar", "--epochs", "2", "--out", out, "--force",
               "--json", *data]
    training = run.part("train", command, 15, 80, read.losses(metrics))
    if os.path.isfile(metrics):
        try:
            shutil.copyfile(metrics, os.path.join(run.out, "metrics.jsonl"))
        except OSError as error:
            run.say(f"[the metrics are not kept: {error}]")
    if training.ok:
        checkpoint = os.path.join(out, "checkpoint.safetensors")
        run.part("eval", [PROGRAM, "eval", checkpoint, "--backend", "cuda", "--json", *data], 10, 60, read.evaluation)
    else:
        run.skip("eval", "there is no checkpoint")
    devices(run)
    sanitizer = tool("compute-sanitizer")
    if not sanitizer:
        run.skip("sanitizer", "compute-sanitizer was not found")
    elif not offers(run, ["doctor"], "--only"):
        run.skip("sanitizer", "`bagssl doctor` has no --only")
    else:
        only = [PROGRAM, "doctor", "--check", "--only", "norm"]
        run.part("sanitizer", [sanitizer, "--error-exitcode", "3", *only], 15, TO_THE_END, read.check)


# The calls: the parts that are planned, and what runs them.
CALLS = {
    "call1": (["environment", "doctor", "resnet-small", "resnet18", "check"], call1),
    "call2": (["doctor", "bench", "torch eager", "profile", "ncu", "torch compiled", "bench again", "torch reduce-overhead"], call2),
    "call3": (["doctor", "golden", "loading", "train", "eval", "one GPU", "two GPUs", "sanitizer"], call3),
}


def shown(value):
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def ratios(done):
    """bagssl beside the fastest PyTorch of the same run."""
    def of(part, figure):
        value = done[part].value(figure) if part in done else None
        return value if isinstance(value, (int, float)) and value > 0 else None

    torches = [name for name in done if name.startswith("torch ") and of(name, "patches_per_second")]
    rates = [rate for name in ("bench", "bench again") if (rate := of(name, "patches_per_second"))]
    if not torches or not rates:
        return []
    best, rate = max(torches, key=lambda name: of(name, "patches_per_second")), sum(rates) / len(rates)
    lines = [f"bagssl / {best}: {rate / of(best, 'patches_per_second'):.3f} (at least 1.25 is wanted)"]
    memory = of("bench", "peak_memory_bytes"), of(best, "peak_memory_bytes")
    if all(memory):
        lines.append(f"peak memory, bagssl / {best}: {memory[0] / memory[1]:.3f} (at most 1.3 is wanted)")
    return lines


# What of a part's rows is told in the summary: groups of figures by how they start, and how many of a group at most.
MATTER = {
    "environment": [(["GPU", "no GPU", "driver's CUDA", "torch", "glibc", "cores"], 8)],
    "doctor": [(["version", "cuDNN", "cuBLAS", "NVRTC", "NVIDIA driver", "CUDA headers", "GPU"], 8)],
    # The part's own section has more of what failed.
    "check": [(["checked", "failed", "complete"], 3), (["check failed"], 12), (["sums"], 30)],
    "ncu": [(["launches", "kernels' time", "kernel: "], 14)],
    "profile": [(["line"], 14)],
    "golden": [(["cuda"], 4)],
    "eval": [(["knn", "linear"], 6)],
    "loader's trace": [(["line"], 25)],
    "sanitizer": [(["checked", "failed"], 4)],
}
OTHERS = [(["patches_per_second", "milliseconds", "first_step_seconds", "peak_memory_bytes", "loading", "steps", "seconds",
            "loss"], 8)]


def matters(done):
    """Lines of the figures that matter, of parts by name."""
    lines = []
    for name, part in done.items():
        groups = MATTER.get(name.removesuffix(" with pip's folders"), OTHERS)
        rows = [row for starts, most in groups
                for row in [row for row in part.rows if row["figure"].startswith(tuple(starts))][:most]]
        told = [f"{row['figure']} {shown(row['value'])} {row['unit']}".strip()[:160] for row in rows]
        if told:
            lines += [f"{name}: " + "; ".join(told)] if sum(map(len, told)) < 130 else [f"{name}:", *(f"  {row}" for row in told)]
    return lines


if __name__ == "__main__" and sys.argv[1:] == ["environment"]:
    environment()
