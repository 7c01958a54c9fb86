#!/usr/bin/env python3
"""Writes the frames beside it as robots' Python clients would send them, and one answer as they would read it.

    pip install msgpack==1.2.4 msgpack-numpy==0.4.8 numpy==2.4.6
    python3 record.py

XPolicyLab's frames are packed with `msgpack_numpy`, as its clients do; GR00T's with `numpy.save`, as Isaac-GR00T's.
"""

import io
from pathlib import Path

import msgpack
import msgpack_numpy
import numpy as np

HERE = Path(__file__).parent


def picture(value):
    return np.full((2, 4, 3), value, np.uint8)


def envelope(kind, payload, **more):
    return {
        "message_type": kind,
        "message_id": f"id-{kind}",
        "evaluation_id": "evaluation",
        "action_case_id": None,
        "trial_id": "trial-1",
        "repeat_index": 2,
        "step": 3,
        "sent_at": "2026-11-28T13:06:00+00:00",
        "payload": payload,
        **more,
    }


def camera(value):
    return {"color": picture(value), "depth": np.zeros((2, 4), np.float32), "shape": (2, 4)}


TWO_ARMS = {
    "data_format_version": "v1.0",
    "instruction": "stack the bowls",
    "env_idx": 0,
    "additional_info": {"frequency": 30},
    "vision": {"cam_head": camera(10), "cam_left_wrist": camera(20), "cam_right_wrist": camera(30)},
    "state": {
        "right_ee_joint_state": np.array([13], np.float32),
        "right_arm_joint_state": np.arange(7, 13, dtype=np.float64),
        "left_ee_joint_state": np.array([6], np.float32),
        "left_arm_joint_state": np.arange(6, dtype=np.float32),
        "left_ee_pose": np.ones(7),
        "mobile": {"base_pose": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]},
    },
}
ONE_ARM = {
    "instruction": ["wipe"],
    "vision": {"cam_head": camera(1), "cam_wrist": camera(2)},
    "state": {"arm_joint_state": np.arange(6, dtype=">f4"), "ee_joint_state": np.float32(6)},
}
ROBOTWIN = {
    "observation": {f"{name}_camera": {"rgb": picture(v)} for name, v in [("head", 1), ("left", 2), ("right", 3)]},
    "joint_action": {"left_arm": [0.0] * 6, "vector": np.arange(14, dtype=np.float64)},
    "instruction": "press the bell",
}

XPOLICYLAB = {
    "hello": envelope("hello", {"evaluation_plan": {"cases": 1}}),
    "prepare_case": envelope("prepare_case", {"action_case_id": "case"}, action_case_id="case"),
    "reset": envelope("reset", {"trial_id": "trial-1"}),
    "infer_two_arms": envelope("infer", {"observation": TWO_ARMS}),
    "infer_one_arm": envelope("infer", {"observation": ONE_ARM}),
    "infer_robotwin": envelope("infer", {"observation": ROBOTWIN}),
    "update_obs": envelope("call", {"func_name": "update_obs", "obs": TWO_ARMS}),
    "get_action": envelope("call", {"func_name": "get_action", "obs": None}),
    "trial_end": envelope("trial_end", {"trial_id": "trial-1", "success": np.bool_(True), "steps": np.int64(-(2**60))}),
    "heartbeat": envelope("heartbeat", {}),
    "close": envelope("close", {"reason": "done"}),
    "objects": envelope("infer", {"observation": {"state": np.array([{"a": 1}], object)}}),
    "structure": envelope("infer", {"observation": {"state": np.zeros(1, [("a", "f4")])}}),
    # What an answer with actions looks like to the packer.
    "answer": {"actions": [{"arm_joint_state": np.arange(2, dtype=np.float32)}], "n": np.arange(3)},
}


def gr00t(value):
    if isinstance(value, np.ndarray):
        file = io.BytesIO()
        np.save(file, value, allow_pickle=True)
        return {"__ndarray_class__": True, "as_npy": file.getvalue()}
    raise TypeError(type(value))


FLAT = {
    "video.image": picture(1)[None],
    # Turned over: numpy.save writes it in Fortran's order.
    "video.wrist_image": np.asfortranarray(picture(2))[None],
    **{f"state.{name}": np.array([[float(i)]]) for i, name in enumerate(["x", "y", "z", "roll", "pitch", "yaw"])},
    "state.gripper": np.array([[6.0, 7.0]]),
    "annotation.human.action.task_description": ["put the bowl on the plate"],
}
NESTED = {
    "video": {"exterior_image_1_left": picture(1)[None, None], "wrist_image_left": picture(2)[None, None]},
    "state": {
        "joint_position": np.arange(7, dtype=np.float32)[None, None],
        "gripper_position": np.array([[[7]]], np.float32),
        "eef_9d": np.zeros((1, 1, 9), np.float32),
    },
    "language": {"annotation.language.language_instruction": [["open the drawer"]]},
}

GR00T = {
    "ping": {"endpoint": "ping"},
    "kill": {"endpoint": "kill", "api_token": "open-sesame"},
    "modality_config": {"endpoint": "get_modality_config"},
    "reset": {"endpoint": "reset", "data": {"options": None}},
    "get_action_flat": {"endpoint": "get_action", "data": FLAT},
    "get_action_nested": {"endpoint": "get_action", "data": {"observation": NESTED, "options": None}},
    "objects": {"endpoint": "get_action", "data": {"state.x": np.array([{"a": 1}], object)}},
    "fortran": {"a": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3))},
}


def main():
    for folder, frames, default in [
        ("xpolicylab", XPOLICYLAB, msgpack_numpy.encode),
        ("gr00t", GR00T, gr00t),
        # Newer clients of GR00T's.
        ("gr00t", {"get_action_msgpack_numpy": GR00T["get_action_nested"]}, msgpack_numpy.encode),
    ]:
        (HERE / folder).mkdir(exist_ok=True)
        for name, frame in frames.items():
            packed = msgpack.packb(frame, default=default, use_bin_type=True)
            (HERE / folder / f"{name}.msgpack").write_bytes(packed)


if __name__ == "__main__":
    main()
