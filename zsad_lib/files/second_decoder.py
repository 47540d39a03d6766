"""decord as a second opinion on frames that PyAV has read: `read_video(path, decoder="decord")` and the doctor ask it.

Its frames are never taken. Its seek lands on other frames in many containers, its count is that of the packets, and
near the end of some streams it never returns: so it reads from the start, in a process of its own that is ended when
its time is up, whatever it does there.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def digest(frame: np.ndarray) -> str:
    """Content of a frame uint8 [H, W, 3]: two frames with the same one are the same picture."""
    return hashlib.blake2b(f"{frame.shape}".encode() + frame.tobytes(), digest_size=16).hexdigest()


def objection(path: str | Path, frames: Mapping[int, str], seconds: float = 60.0) -> str:
    """What decord says against these frames of a video, in words; "" where it reads the same pictures.

    Args:
        path: video file.
        frames: number -> `digest` of the frame.
        seconds: given to it; after them its process is ended.
    """
    command = [sys.executable, "-P", __file__, str(Path(path).absolute()), str(1 + max(frames))]  # -P: not from here
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=seconds, check=True, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"it has not read them after {seconds:g} s"
    except subprocess.CalledProcessError:
        return "it cannot read them"
    seen = done.stdout.split()
    other = [number for number, content in frames.items() if seen[number] != content]
    return f"frame {min(other)} is another picture there" if other else ""


def main(path: str, n_frames: str) -> None:
    """Prints the `digest` of each of the first frames, one after the other."""
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "10240")
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(path, num_threads=1, fault_tol=1)
    for _ in range(int(n_frames)):
        print(digest(reader.next().asnumpy()))


if __name__ == "__main__":
    main(*sys.argv[1:])
