"""What openpi's own client, from PyPI, makes of a server; run in an environment of its own. Prints JSON.

Usage: openpi_session.py PORT API_KEY OBSERVATION.npz
"""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy


def main() -> None:
    port, api_key, path = sys.argv[1:]
    with np.load(path) as arrays:
        observation = {**{key.replace("|", "/"): arrays[key] for key in arrays}, "prompt": "put the bowl on the plate"}
    connect = lambda: WebsocketClientPolicy("127.0.0.1", int(port), api_key)  # noqa: E731
    policy = connect()
    reply = policy.infer(observation)
    broker = ActionChunkBroker(policy, action_horizon=3)
    steps = [broker.infer(observation) for _ in range(4)]
    try:
        connect().infer({**observation, "observation/state": np.zeros(7)})
        error = None
    except RuntimeError as refused:
        error = str(refused)
    report = {
        "numpy": np.__version__,
        "metadata": policy.get_server_metadata(),
        "actions": reply["actions"].tolist(),
        "dtype": reply["actions"].dtype.str,
        "routing": reply["routing"],
        "infer_ms": reply["policy_timing"]["infer_ms"],
        "broker": [step["actions"].tolist() for step in steps],
        "error": error,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
