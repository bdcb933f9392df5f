"""How `cargo xtask bench` talks to an engine: one JSON object a line, the question on stdin, the answer on stdout.

An engine loads, warms up, says what it is, and then waits without using a processor:

    {"ready": true, "engine": "PyTorch 2.11.0, eager", "seconds_load": 4.1, "seconds_prepare": 9.0}

    {"do": "step"}                    one step, timed by the engine itself    {"seconds": 1.31}     (training: and "loss")
    {"do": "output", "path": FILE}    the last step's result, raw f32         {"values": 8192}
    {"do": "rate"}                    the library's own Linear, in GFLOP/s    {"fp32": 171.0, "bf16": 702.0}
    {"do": "memory"}                  the most memory it held                 {"peak_rss_bytes": 3200000000}

The end of stdin ends the engine.
"""

import json
import os
import resource
import sys
import time


def take_stdout():
    """Keeps the channel to the harness to ourselves: what libraries print goes to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return channel


def peak_rss_bytes():
    """Of this process alone: ru_maxrss would count the parent's pages from before exec."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(channel, ready, step, output, rate):
    """Answers until stdin ends. `step()` gives extra fields of its answer, `output()` a flat float32 array."""

    def say(**fields):
        print(json.dumps(fields), file=channel)

    say(ready=True, **ready)
    for line in sys.stdin:
        question = json.loads(line)
        match question["do"]:
            case "step":
                start = time.perf_counter()
                extra = step() or {}
                say(seconds=time.perf_counter() - start, **extra)
            case "output":
                values = output()
                values.tofile(question["path"])
                say(values=int(values.size))
            case "rate":
                say(**rate())
            case "memory":
                say(peak_rss_bytes=peak_rss_bytes())
            case other:
                say(error=f"unknown: {other}")
