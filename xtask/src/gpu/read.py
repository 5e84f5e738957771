"""What is read from a part's output: rows of a figure, its value and its unit; the lines that say what went wrong."""
import csv
import json
import re

# The units of figures that programs print as JSON, by the end of their names.
UNITS = [("patches_per_second", "patches/s"), ("milliseconds", "ms"), ("seconds", "s"), ("bytes", "bytes"), ("knn", "%"),
         ("linear", "%")]
WRONG = re.compile(r"error|panick|FAILED|fault|Traceback|cannot|missing|not found|abort|terminate|CUDA_|STATUS_|Killed|"
                   r"out of memory|exception", re.IGNORECASE)
# The longest line that is told.
LINE = 300


def nothing(_):
    return []


def clip(line):
    return line if len(line) <= LINE else f"{line[:LINE]} .."


def first_error(lines):
    """The first lines that tell of something wrong, checks that failed among them, and the last lines."""
    lines = [line for line in lines if line.strip()]
    wrong = [at for at, line in enumerate(lines) if WRONG.search(line) and not line.startswith("ok ")][:25]
    last = range(max(0, len(lines) - 6), len(lines))
    return [clip(lines[at]) for at in sorted({*wrong, *last})]


def lines(limit, pattern=""):
    """A reader that gives the first so many lines that match."""
    def read(given):
        matching = [line for line in given if line.strip() and re.search(pattern, line)]
        return [("line", clip(line)) for line in matching[:limit]]
    return read


def named(given):
    """Lines of a name, a colon and a value."""
    return [tuple(part.strip() for part in line.split(":", 1)) for line in given if re.match(r"[^:\n]{1,40}: \S", line)]


def doctor(given):
    """Of `bagssl doctor`: its version, and each part of CUDA."""
    rows = [("version", line.split()[1]) for line in given if re.match(r"bagssl \d", line)]
    for line in given:
        part = re.match(r" {9}(\S.{13}) (\S.*)$", line)
        if part:
            rows.append((part[1].strip(), clip(part[2])))
    return rows


def check(given):
    """Of `bagssl doctor --check`: how many figures were checked and how many failed, the parts' sums, what failed."""
    ok = sum(line.startswith("ok ") for line in given)
    failed = []
    for line in given:
        # The summary in the end lists them again, each with a colon and its shapes.
        if re.match(r"FAILED\b", line) and not any(line.startswith(f"{other}:") for other in failed):
            failed.append(line)
    sums = [line for line in given if re.match(r"[\w -]+ +\d+ figures, +\d+ failed, ", line)]
    ended = any(re.match(r"\d+ (figures|checks), \d+ failed", line) for line in given)
    rows = [("checked", ok + len(failed)), ("failed", len(failed)), ("complete", ended)]
    rows += [("check failed", clip(line)) for line in failed[:200]]
    return rows + [("sums", clip(line.strip())) for line in sums]


def json_of(given):
    """The last JSON object in the output, on a line of its own or on the last lines."""
    for line in reversed(given):
        if line.startswith("{") and line.rstrip().endswith("}"):
            return json.loads(line)
    begins = [at for at, line in enumerate(given) if line == "{"]
    return json.loads("\n".join(given[begins[-1]:])) if begins else {}


def unit(figure):
    return next((unit for end, unit in UNITS if figure.endswith(end)), "")


def figures(given):
    """What a program prints as a JSON object, without what is nested."""
    return [(name, value, unit(name)) for name, value in json_of(given).items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)]


def accuracy(given):
    """Of `bagssl bench accuracy --json`: how far each way to compute is from the exact one."""
    rows = []
    for network in json_of(given).get("networks", []):
        kernel = network["kernel"]
        rows += [(f"{kernel}: {name.replace('_', ' ')}", network[name]) for name in ("lowest_cosine", "mean_cosine", "error")]
        rows.append((f"{kernel}: kNN", network["knn"], "%"))
    return rows


def evaluation(given):
    """Of `bagssl eval --json`: the accuracies with the most patches."""
    most = {}
    for score in json_of(given).get("results", []):
        what = tuple(str(score[key]) for key in ("space", "colour", "view"))
        if what not in most or score["patches"] > most[what]["patches"]:
            most[what] = score
    return [(f"{name}: {', '.join(what)}, {score['patches']}", score[name], "%")
            for name in ("knn", "linear") for what, score in most.items()]


def losses(path):
    """A reader of a training's result, and of the losses that it has written to `metrics.jsonl`."""
    def read(given):
        rows = figures(given)
        steps = []
        with open(path) as file:
            for line in file:
                try:
                    step = json.loads(line)
                except ValueError:
                    break
                if step.get("event") == "step" and "loss" in step:
                    steps.append(step["loss"])
        if steps:
            rows += [("loss of the first step", steps[0]), ("loss of the last step", steps[-1])]
        return rows
    return read


def nanoseconds(value, unit):
    factors = {"n": 1, "u": 1e3, "m": 1e6, "s": 1e9}
    return float(value.replace(",", "")) * factors[unit[0]]


def ncu(given, most=30):
    """Of `ncu --csv` with the kernels' durations: launches and milliseconds of each kernel, the longest first."""
    begins = next(at for at, line in enumerate(given) if line.startswith('"ID",'))
    sums = {}
    for row in csv.DictReader(given[begins:]):
        if row.get("Metric Name") != "gpu__time_duration.sum":
            continue
        name = row["Kernel Name"].split("(")[0][:100]
        launches, time = sums.get(name, (0, 0.0))
        sums[name] = launches + 1, time + nanoseconds(row["Metric Value"], row["Metric Unit"])
    if not sums:
        return []
    whole = sum(time for _, time in sums.values())
    rows = [("launches", sum(launches for launches, _ in sums.values())), ("kernels' time", whole / 1e6, "ms")]
    longest = sorted(sums.items(), key=lambda entry: -entry[1][1])[:most]
    return rows + [(f"kernel: {name} x {launches}", time / 1e6, "ms") for name, (launches, time) in longest]
