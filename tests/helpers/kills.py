"""Programs that are killed at any moment and started again."""

import os
import signal
import subprocess
import time

from tests.helpers.processes import ROOT


def yaml(path, model, output, num_problems=12, num_samples=3, max_tokens=16, batch_size=3, temperature=1.0):
    """A configuration of ``sampling generate`` with a real network."""
    path.write_text(f"""
engine:
  class_path: sampling.engines.TransformersEngine
  init_args: {{ model: {model}, device: cpu, batch_size: {batch_size} }}
problems:
  class_path: stepverify.readers.Synthetic
  init_args: {{ split: train, num_problems: {num_problems}, worked: false }}
num_samples: {num_samples}
sampling: {{ temperature: {temperature}, max_tokens: {max_tokens} }}
output: {output}
""")
    return str(path)


def num_lines(output):
    """Records in the shards of a folder."""
    return sum(path.read_bytes().count(b"\n") for path in output.glob("part-*.jsonl"))


def run_with_kills(command, output, total, kills, rng, timeout=120):
    """Start ``command`` again and again; kill it after a random number of further lines, then let it end.

    Returns how many runs were killed with the output half done.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    killed = 0
    for _ in range(kills):
        goal = num_lines(output) + rng.randint(1, max(1, total // (kills + 2)))
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
        )
        end = time.monotonic() + timeout
        while process.poll() is None and num_lines(output) < goal and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL and 0 < num_lines(output) < total
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, timeout=timeout)
    return killed
