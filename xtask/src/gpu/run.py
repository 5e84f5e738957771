#!/usr/bin/env python3
"""What run.sh runs: the parts of each call, one after the other, each in a process of its own and with a limit.

A part that fails, hangs, crashes or floods its output stops none of the others. All that is printed goes to log.txt, and
what was read from it to rows.jsonl, at the latest when a part ends; summary.txt and the end of the output have a line for
each part and what matters.
"""
import argparse
import datetime
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback

import parts
import read

# Seconds of a call that the limits of its parts were chosen for.
CALL_SECONDS = 230
# A program that does not end when it is asked to is killed after so many seconds.
KILL_AFTER = 3
# Of a part's output: bytes that are kept from its beginning and its end, and bytes that are printed as they come.
HEAD, TAIL, SHOWN = 1 << 20, 1 << 16, 1 << 15
SUMMARY_CHARACTERS = 10_000
# Of these, what the parts that failed have at least for their output.
FAILED_CHARACTERS = 2_500
# The longest line of the summary that says how a part went.
OUTCOME_CHARACTERS = 160
OUTCOMES = ["ok", "failed", "timed out", "not run", "cut off"]


class Cut(BaseException):
    """The whole run is asked to end. Nothing that guards against errors holds it up."""


class Done:
    """How a part went."""

    def __init__(self, name, outcome, detail="", seconds=0.0, lines=()):
        self.name, self.outcome, self.detail, self.seconds, self.lines = name, outcome, detail, seconds, list(lines)
        self.rows = []

    @property
    def ok(self):
        return self.outcome == "ok"

    def value(self, figure):
        return next((row["value"] for row in reversed(self.rows) if row["figure"] == figure), None)


class File:
    """A file that is added to. If it cannot be written, as on a full disk, the run says so once and goes on."""

    def __init__(self, path):
        self.path, self.file, self.wrong = path, open(path, "ab", buffering=0), None

    def write(self, text):
        try:
            while text:
                text = text[self.file.write(text):]
        except OSError as error:
            if self.wrong is None:
                say_bytes(f"[{self.path}: {error}]\n".encode())
            self.wrong = error


class Output:
    """A part's output: written to the log and printed as it comes, kept in part."""

    def __init__(self, log):
        self.log, self.head, self.tail, self.bytes = log, b"", b"", 0

    def add(self, chunk):
        shown = chunk[:max(0, SHOWN - self.bytes)]
        if shown:
            say_bytes(shown)
            if len(shown) < len(chunk):
                say_bytes(b"\n[the rest is in log.txt]\n")
        self.bytes += len(chunk)
        first = chunk[:HEAD - len(self.head)]
        self.head += first
        self.tail = (self.tail + chunk[len(first):])[-TAIL:]
        self.log.write(first)

    def end(self):
        """The lines that were kept."""
        left_out = self.bytes - len(self.head) - len(self.tail)
        between = f"\n[{left_out} bytes left out]\n".encode() if left_out else b""
        self.log.write(between + self.tail + b"\n")
        text = (self.head + between + self.tail).decode("utf-8", "replace")
        return text.replace("\r", "\n").splitlines()


def now():
    return datetime.datetime.now(datetime.timezone.utc)


def say_bytes(text):
    try:
        while text:
            text = text[os.write(1, text):]
    except OSError:
        pass  # Nobody reads it, or there is no room for it: the files have it too.


class Run:
    """The parts that have run, and the files that tell of them."""

    def __init__(self, out, data, seconds):
        os.makedirs(out, exist_ok=True)
        self.out, self.data, self.scale = out, data, seconds / CALL_SECONDS
        self.log, self.rows = File(os.path.join(out, "log.txt")), File(os.path.join(out, "rows.jsonl"))
        self.environment = dict(os.environ)
        self.done, self.call, self.seconds, self.child, self.wrong = [], None, seconds, None, []

    def begin(self, call, plan, stopped=None):
        self.call, self.deadline, self.stopped, self.plan = call, time.monotonic() + self.seconds, stopped, plan
        begun = f"{now():%Y-%m-%dT%H:%M:%SZ}"
        self.row("call", "format", 1)
        self.row("call", "begun", begun)
        self.row("call", "plan", plan)
        self.say(f"## {call}, {begun}, {self.seconds:.0f} s")

    def end(self, why):
        """Says of each part that was planned and has not run why."""
        ran = {done.name for call, done in self.done if call == self.call}
        for name in self.plan:
            if name not in ran:
                self.skip(name, self.stopped or why)

    def say(self, line):
        line = line.encode("utf-8", "replace") + b"\n"
        say_bytes(line)
        self.log.write(line)

    def error(self, error):
        """Keeps and prints an error that is no part's, and returns it in a line."""
        self.say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
        self.wrong.append(f"run.py: {error!r}")
        return self.wrong[-1]

    def row(self, part, figure, value, unit="", seconds=0.0):
        row = {"call": self.call, "part": part, "figure": figure, "value": value, "unit": unit, "seconds": round(seconds, 3)}
        self.rows.write(json.dumps(row).encode() + b"\n")
        return row

    def left(self):
        return self.deadline - time.monotonic()

    def skip(self, name, why):
        return self.record(Done(name, "not run", why), read.nothing)

    def part(self, name, command, least, most, reader=read.nothing, **environment):
        """Runs a command for at most `most` seconds, if `least` are left of the call; both are for a call of 230 s."""
        left = self.left() - KILL_AFTER * min(1, self.scale)
        if self.stopped:
            return self.skip(name, self.stopped)
        if left < least * self.scale:
            return self.skip(name, f"{max(0, left):.3g} s left, expected {least * self.scale:.3g}")
        limit = min(most * self.scale, left)
        shown = " ".join([*(f"{key}={value}" for key, value in environment.items()), *command])
        self.say(f"\n### {name} (at most {limit:.3g} s)\n$ {shown}")
        self.row(name, "command", shown)
        return self.record(self.execute(name, command, limit, environment), reader)

    def execute(self, name, command, limit, environment):
        begun, output = time.monotonic(), Output(self.log)
        after = KILL_AFTER * min(1, self.scale)
        limited = ["timeout", "-k", f"{after:.2f}", f"{limit:.2f}", *command]
        if environment:
            limited[4:4] = ["env", *(f"{key}={value}" for key, value in environment.items())]
        detail = ""
        try:
            self.child = subprocess.Popen(limited, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0,
                                          stderr=subprocess.STDOUT, env=self.environment, start_new_session=True)
            # Neither a pipe that something still holds nor a process that cannot be killed keeps the next part waiting.
            code = follow(self.child, output, begun + limit + after + 1)
        except Cut:
            code, detail = None, "the run was asked to end"
        except OSError as error:
            return Done(name, "failed", str(error), 0.0, output.end())
        finally:
            kill(self.child)
        seconds = time.monotonic() - begun
        if detail:
            done = Done(name, "cut off", detail, seconds, output.end())
            self.record(done, read.nothing)
            raise Cut
        if code is None or code == 124 or code in (137, -9) and seconds >= limit:
            return Done(name, "timed out", f"limit {limit:.3g} s", seconds, output.end())
        if code != 0:
            return Done(name, "failed", exit_code(code), seconds, output.end())
        return Done(name, "ok", "", seconds, output.end())

    def record(self, done, reader):
        self.done.append((self.call, done))
        try:
            rows = reader(done.lines)
        except Exception as error:  # Whatever a program prints, the next part runs.
            rows = []
            self.say(f"[{done.name}: its output cannot be read: {error!r}]")
        done.rows = [self.row(done.name, *row, seconds=done.seconds) for row in rows]
        if not done.ok and done.outcome != "not run":
            for line in read.first_error(done.lines):
                self.row(done.name, "error", line, seconds=done.seconds)
        self.row(done.name, "outcome", done.outcome, done.detail, done.seconds)
        self.say(f"[{done.name}: {described(done)}]")
        return done


def follow(child, output, until):
    """Reads what a process prints until it ends, and gives its exit code; None if it has not ended by then."""
    file = child.stdout.fileno()
    while (left := until - time.monotonic()) > 0:
        ended = child.poll() is not None
        ready, _, _ = select.select([file], [], [], 0 if ended else min(left, 0.1))
        chunk = os.read(file, 1 << 16) if ready else None
        if chunk:
            output.add(chunk)
        elif ended:
            break
        elif chunk == b"":
            try:
                child.wait(left)
            except subprocess.TimeoutExpired:
                break
    return child.poll()


def kill(child):
    """Ends all that a part has left running."""
    if child is None:
        return
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    child.poll()
    if child.stdout:
        child.stdout.close()


def exit_code(code):
    number = -code if code < 0 else code - 128
    if number > 0:
        try:
            return f"exit code {128 + number}, {signal.Signals(number).name}"
        except ValueError:
            pass
    return f"exit code {code}"


def described(done):
    why = f" ({done.detail})" if done.detail else ""
    return f"{done.outcome}{why}" if done.outcome == "not run" else f"{done.outcome}{why} after {done.seconds:.1f} s"


def cut_lines(lines, characters):
    """The first lines, as many as have room, and how many there are besides."""
    for count in range(len(lines), -1, -1):
        more = [f"[{len(lines) - count} more lines are in log.txt]"] if count < len(lines) else []
        text = "\n".join(lines[:count] + more)
        if len(text) <= characters:
            return text
    return ""


def summary(run):
    """A line for each part, the figures that matter, and what failed, in at most `SUMMARY_CHARACTERS` characters."""
    width = max((len(done.name) for _, done in run.done), default=0)
    lines = ["", "# Summary", ""]
    lines += [f"{call}  {done.name:<{width}}  {described(done)}"[:OUTCOME_CHARACTERS] for call, done in run.done]
    counts = [f"{sum(done.outcome == outcome for _, done in run.done)} {outcome}" for outcome in OUTCOMES]
    files = [f"{file.path}: {file.wrong}" for file in (run.log, run.rows) if file.wrong]
    named = {done.name: done for _, done in run.done if done.rows}
    try:
        ratios, matters = parts.ratios(named), parts.matters(named)
    except Exception as error:  # Whatever a program printed, the rest of the summary is told.
        run.error(error)
        ratios = matters = []
    # What is short and must not be missing comes first.
    lines += ["", ", ".join(counts), *(line[:2 * OUTCOME_CHARACTERS] for line in run.wrong + files), *ratios, "", ""]
    failed = [done for _, done in run.done if done.outcome in ("failed", "timed out", "cut off")]
    text = "\n".join(lines)
    text += cut_lines(matters, SUMMARY_CHARACTERS - len(text) - 200 - (FAILED_CHARACTERS if failed else 0))
    sections = [f"\n\n## {done.name}: {described(done)}\n" + "\n".join(read.first_error(done.lines)) for done in failed]
    room = SUMMARY_CHARACTERS - len(text) - 200
    # What is left is shared among all; what short ones leave is for the longer ones.
    for at, short in enumerate(sorted(range(len(sections)), key=lambda which: len(sections[which]))):
        sections[short] = sections[short][:max(0, room // (len(sections) - at))]
        room -= len(sections[short])
    text += "".join(sections)
    return text[:SUMMARY_CHARACTERS - 200] + f"\n\nkept in {run.out}"[:190] + "\n"


def arguments():
    parser = argparse.ArgumentParser(prog="run.sh", description="Check and measure bagssl on a machine with an NVIDIA GPU.")
    parser.add_argument("call", choices=[*parts.CALLS, "all"],
                        help="call1: does it work? call2: how fast is it? call3: is it right?")
    parser.add_argument("--seconds", type=float, default=CALL_SECONDS, help="time limit of a call (default: %(default)s)")
    parser.add_argument("--data", help="train on this data set (default: the one in this folder)")
    args = parser.parse_args()
    if not 1 <= args.seconds <= 3600:
        parser.error(f"--seconds: expected 1 to 3600, got {args.seconds}")
    if args.data and not os.path.exists(args.data):
        parser.error(f"--data: expected a file or folder, got {args.data}")
    return args


def main():
    args = arguments()
    data = os.path.abspath(args.data) if args.data else None
    here = os.path.dirname(os.path.abspath(__file__))
    os.chdir(here)
    if data is None and os.path.isdir("data"):
        names = os.listdir("data")
        data = os.path.join("data", names[0]) if len(names) == 1 and os.path.isfile(f"data/{names[0]}") else "data"
    out = os.environ.get("OUT") or os.path.join(here, "results", f"{now():%Y-%m-%d}")
    try:
        run = Run(out, data, args.seconds)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def cut(*_):
        raise Cut

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for asked in signals:
        signal.signal(asked, cut)
    calls = list(parts.CALLS) if args.call == "all" else [args.call]
    why = None
    try:
        while calls and not why:
            call = calls.pop(0)
            plan, work = parts.CALLS[call]
            run.begin(call, plan)
            try:
                work(run)
                run.end("not needed")
            except Exception as error:  # What goes wrong between the parts costs this call's other parts, and no other call.
                run.end(run.error(error))
            # What stops one call would stop the others.
            why = run.stopped
    except Cut:
        why = "the run was asked to end"
        run.end(why)
    for asked in signals:
        signal.signal(asked, signal.SIG_IGN)
    for call in calls:
        run.begin(call, parts.CALLS[call][0], why)
        run.end(why)
    shutil.rmtree(parts.TRAINING, ignore_errors=True)
    text = summary(run)
    try:
        File(os.path.join(out, "summary.txt")).write(text.encode("utf-8", "replace"))
    except OSError as error:
        say_bytes(f"[summary.txt: {error}]\n".encode())
    say_bytes(text.encode("utf-8", "replace") + b"\n")
    ok = all(done.outcome in ("ok", "not run") for _, done in run.done)
    return int(not ok or bool(run.wrong or run.log.wrong or run.rows.wrong))


if __name__ == "__main__":
    sys.exit(main())
