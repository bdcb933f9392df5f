"""One engine of `cargo xtask bench` in Python: PyTorch or OpenVINO, on one case. See protocol.py.

    python bench/dit/peer.py --case CASE.json --engine eager|compile|openvino --precision fp32|bf16

CASE.json, its weights and its inputs are written by the bench's own engine (`dit-bench-engine prepare`).
"""

import argparse
import atexit
import contextlib
import json
import os
import shutil
import sys
import time
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", type=Path, required=True)
    parser.add_argument("--engine", choices=["eager", "compile", "openvino"], required=True)
    parser.add_argument("--precision", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scratch", type=Path, required=True, help="where what is compiled may be kept")
    return parser.parse_args()


def main():
    from protocol import serve, take_stdout

    args, channel = arguments(), take_stdout()
    args.scratch = args.scratch.absolute()  # compilers run in folders of their own
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compilers_folder(args.scratch))
    import torch

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # fp32 is fp32: of its own accord PyTorch takes TF32 for convolutions.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if args.device != "cpu" and args.engine == "openvino":
        sys.exit("OpenVINO is measured on the CPU only")
    case = json.loads(args.case.read_text())
    start = time.perf_counter()
    if case["task"] == "train":
        from training import Training

        task = Training(case, args)
    else:
        task = Inference(case, args)
    loaded = time.perf_counter()
    task.warm_up()
    prepared = time.perf_counter()
    ready = dict(engine=task.name(), seconds_load=loaded - start, seconds_prepare=prepared - loaded)
    serve(channel, ready, task.step, task.output, lambda: linear_rate(args))


def compilers_folder(scratch):
    """Of this process alone: what an interrupted compiler leaves half written would fail the next run. Clears the dead ones'."""
    for folder in scratch.glob("inductor-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)
    folder = scratch / f"inductor-{os.getpid()}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def linear_rate(args, seconds=0.4):
    """The library's own Linear over one MLP of DiT-XL/2 at batch 2, 512 x 1152 -> 4608, in GFLOP/s."""
    import torch

    # A GPU takes a queue of them: one alone would tell how long a launch takes.
    at_once = 1 if args.device == "cpu" else 50
    rates = {}
    for name, dtype in [("fp32", torch.float32), ("bf16", torch.bfloat16)]:
        x = torch.randn(512, 1152, device=args.device, dtype=dtype)
        weight, bias = (torch.randn(*shape, device=args.device, dtype=dtype) for shape in [(4608, 1152), (4608,)])
        times, started = [], time.perf_counter()
        with torch.inference_mode():
            while len(times) < 5 or time.perf_counter() - started < seconds:
                start = time.perf_counter()
                for _ in range(at_once):
                    torch.nn.functional.linear(x, weight, bias)
                if args.device != "cpu":
                    torch.cuda.synchronize()
                times.append((time.perf_counter() - start) / at_once)
        rates[name] = 2 * 512 * 1152 * 4608 / sorted(times)[len(times) // 2] / 1e9
    return rates


def load_tensors(path, device="cpu"):
    from safetensors.torch import load_file

    return load_file(path, device=device)


class Inference:
    """A guided step of the transformer, or a decoding by the VAE."""

    def __init__(self, case, args):
        self.case, self.args = case, args
        inputs = load_tensors(case["input"], args.device)
        self.model, self.inputs = MODELS[case["task"]](case, inputs, args.device)
        self.run = {"eager": self.eager, "compile": self.compiled, "openvino": self.openvino}[args.engine]()
        self.result = None

    def name(self):
        import torch

        if self.args.engine == "openvino":
            import openvino

            return f"OpenVINO {openvino.__version__.split('-')[0]}"
        how = "torch.compile" if self.args.engine == "compile" else "eager"
        return f"PyTorch {torch.__version__.split('+')[0]} {how}"

    def eager(self):
        """bf16: weights and activations, as our own."""
        import torch

        if self.args.precision == "bf16":
            self.model.to(torch.bfloat16)
            self.inputs = tuple(x.to(torch.bfloat16) if x.is_floating_point() else x for x in self.inputs)
        return torch.inference_mode()(lambda: self.model(*self.inputs))

    def compiled(self):
        """On a CPU: weights frozen into the graph, packed and prepared; bf16 by autocast, which freezing turns into bf16 weights."""
        import torch
        import torch._inductor.config

        if self.args.device == "cpu":
            torch._inductor.config.freezing = True
            model = torch.compile(self.model)
        else:
            if self.args.precision == "bf16":
                self.model.to(torch.bfloat16)
                self.inputs = tuple(x.to(torch.bfloat16) if x.is_floating_point() else x for x in self.inputs)
            model = torch.compile(self.model, mode="max-autotune")

        def run():
            bf16 = self.args.precision == "bf16" and self.args.device == "cpu"
            cast = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()
            with torch.no_grad(), cast:
                return model(*self.inputs)

        return run

    def openvino(self):
        """Converted once, kept in the scratch folder; latency mode, the precision as a hint."""
        import openvino

        path = self.args.scratch / f"{self.args.case.stem}.openvino.xml"
        if not path.exists():
            converted = openvino.convert_model(self.model, example_input=self.inputs)
            for port, example in zip(converted.inputs, self.inputs):
                port.get_node().set_partial_shape(openvino.PartialShape(list(example.shape)))
            converted.validate_nodes_and_infer_types()
            whole = path.with_name(f"{path.stem}.{os.getpid()}.xml")
            openvino.save_model(converted, whole, compress_to_fp16=False)
            # The weights first: the description beside them says that both are whole.
            whole.with_suffix(".bin").rename(path.with_suffix(".bin"))
            whole.rename(path)
            del converted
        self.model = None
        compiled = openvino.Core().compile_model(path, "CPU", {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[self.args.precision],
            "INFERENCE_NUM_THREADS": self.args.threads,
            "PERFORMANCE_HINT": "LATENCY",
        })
        request = compiled.create_infer_request()
        arrays = [x.numpy() for x in self.inputs]
        return lambda: request.infer(arrays, share_inputs=True)[0]

    def warm_up(self):
        for _ in range(2):
            self.step()

    def step(self):
        self.result = self.run()
        if self.args.device != "cpu":
            import torch

            torch.cuda.synchronize()

    def output(self):
        import numpy

        if isinstance(self.result, numpy.ndarray):
            return numpy.ascontiguousarray(self.result, dtype=numpy.float32).reshape(-1)
        return self.result.float().cpu().contiguous().numpy().reshape(-1)


def guided(case, inputs, device):
    """One guided evaluation of the transformer."""
    from model import Dit, Guided

    dit = Dit(case["model"])
    dit.load_state_dict(load_tensors(case["weights"]), strict=True, assign=True)
    model = Guided(dit, case["null_class"], case["guidance"]).eval().to(device)
    return model.requires_grad_(False), (inputs["x"], inputs["t"], inputs["labels"])


def decoder(case, inputs, device):
    """diffusers' AutoencoderKL, from raw latents to an image."""
    import torch
    from diffusers import AutoencoderKL

    class Decoder(torch.nn.Module):
        def __init__(self, vae):
            super().__init__()
            self.vae = vae

        def forward(self, z):
            return self.vae.decode(z, return_dict=False)[0]

    vae = AutoencoderKL.from_pretrained(case["weights"])
    return Decoder(vae).eval().to(device).requires_grad_(False), (inputs["z"],)


MODELS = {"sample": guided, "decode": decoder}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
