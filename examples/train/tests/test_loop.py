"""A run that was stopped ends where one that was not does."""

import pytest
import torch

from skillweld_train.loop import SAVE, Run


class Stopped(Exception):
    pass


def train(folder, stop=None, **of):
    """`SAVE` + 70 steps of fitting a line, or fewer; the weights, and the curves' rows. `of`: what the run says that it is of."""
    torch.manual_seed(0)
    model, steps = torch.nn.Linear(3, 2), SAVE + 70
    run = Run(folder, [model], steps, 1e-2, seed=4, of={"rate": 1e-2} | of, warm_up=10)

    def losses(random):
        if run.step == stop:
            raise Stopped
        x = torch.from_numpy(random.normal(size=(8, 3))).float()
        return {"total": (model(x).float() - x[:, :2]).abs().mean()}

    run.go(losses)
    return model.state_dict(), run.rows


def test_going_on_is_the_same(tmp_path):
    weights, rows = train(tmp_path / "whole")
    try:
        train(tmp_path / "parts", stop=SAVE + 30)
        raise AssertionError("not stopped")
    except Stopped:
        pass
    resumed, resumed_rows = train(tmp_path / "parts")
    for name, value in weights.items():
        assert torch.equal(value, resumed[name]), name
    assert rows == resumed_rows
    assert [row["step"] for row in rows] == [50, 100, 150, 200, 250, 270]
    # A line is learned: means are of 50 steps, and of 20 at the end.
    assert rows[-1]["total"] < 0.1 * rows[0]["total"]


def test_another_run_is_not_gone_on_with(tmp_path):
    train(tmp_path)
    with pytest.raises(SystemExit, match="name another folder"):
        train(tmp_path, demos=["others"])
