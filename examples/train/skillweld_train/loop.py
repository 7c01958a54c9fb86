"""One training run: schedule, curves, and going on where it was stopped."""

import csv
import math
import pathlib
import time

import numpy as np
import torch

#: Steps of a row of the curves; steps between two savings, a multiple of that.
ROW, SAVE = 50, 200


def asked(args):
    """What a command line asks for, but for where it goes and how fast."""
    return {name: value for name, value in vars(args).items() if name not in ("out", "threads")}


class Run:
    """Steps of AdamW under a warm-up and half a cosine, with everything that is needed to go on in `folder/training.state`."""

    def __init__(self, folder, modules, steps, rate, *, seed, of, decay=0.01, warm_up=100):
        """`of`: all that the run is of, in JSON's types; a folder whose run is of something else is not gone on with."""
        self.folder, self.of = pathlib.Path(folder), of
        self.folder.mkdir(parents=True, exist_ok=True)
        self.modules, self.steps = modules, steps
        self.parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=decay, betas=(0.9, 0.99))
        ramp = lambda step: min(1, (step + 1) / warm_up) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, ramp)
        self.step, self.rows, self.random = 0, [], np.random.default_rng(seed)
        self.state_file = self.folder / "training.state"
        if self.state_file.exists():
            self.restore()

    def trained(self):
        """Names and tensors that training moves, of all modules."""
        for index, module in enumerate(self.modules):
            for name, parameter in module.named_parameters():
                if parameter.requires_grad:
                    yield f"{index}.{name}", parameter

    def restore(self):
        # Of nobody else's making; the reader for weights alone knows no plain numbers in PyTorch 1.
        state = torch.load(self.state_file, map_location="cpu", weights_only=False)
        if state.get("of") != self.of:
            raise SystemExit(
                f"{self.folder} has a run of {state.get('of')}, which is not one of {self.of}; name another folder, or remove that one"
            )
        with torch.no_grad():
            for name, parameter in self.trained():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.rows = state["step"], state["rows"]
        self.random.bit_generator.state = state["random"]
        print(f"{self.folder}: goes on at step {self.step} of {self.steps}", flush=True)

    def save(self):
        state = {
            "parameters": {name: parameter.detach() for name, parameter in self.trained()},
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "of": self.of,
            "rows": self.rows,
            "random": self.random.bit_generator.state,
        }
        partial = self.state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.state_file)

    def go(self, losses):
        """Trains to the end. `losses(random)` gives named losses, of which the first is the one to make small."""
        begun, first, sums = time.time(), self.step, {}
        while self.step < self.steps:
            # Master weights are f32, products bf16: a processor with AMX multiplies those much faster.
            with torch.autocast(self.device.type, torch.bfloat16):
                named = losses(self.random)
            total = next(iter(named.values()))
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            for name, value in named.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if self.step % ROW == 0 or self.step == self.steps:
                count = (self.step - 1) % ROW + 1
                row = {"step": self.step} | {name: round(value / count, 5) for name, value in sums.items()}
                self.rows.append(row)
                sums = {}
                rate = (self.step - first) / (time.time() - begun)
                print(" ".join(f"{k} {v}" for k, v in row.items()), f"({rate:.2f} steps/s)", flush=True)
            if self.step % SAVE == 0 or self.step == self.steps:
                self.save()

    def curves(self):
        """`curves.csv` and `curves.png`."""
        with open(self.folder / "curves.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[-1]))
            writer.writeheader()
            writer.writerows(self.rows)
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4))
        for name in list(self.rows[-1])[1:]:
            axes.plot([row["step"] for row in self.rows], [row[name] for row in self.rows], label=name)
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        axes.legend()
        figure.savefig(self.folder / "curves.png", dpi=120)
        pyplot.close(figure)
