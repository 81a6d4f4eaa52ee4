"""What the default costs beside the default before it, side by side: a sixth of the epochs of each, in turns.

python benchmarks/cost.py [--rounds 3] [--per-class 500]
Writes benchmarks/results/cost.json.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

from common import cifar10, record

import miue

SIXTH = {
    "em:lasting": "em:lasting,epochs=6,colour_epochs=2",
    "mi-ue:quick,epochs=24,step_size=2": "mi-ue:quick,epochs=4,step_size=2",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=500)
    options = parser.parse_args()
    clean, seconds = cifar10("train", options.per_class), {name: [] for name in SIXTH}
    for number in range(options.rounds + 1):
        for name, short in SIXTH.items():
            start = time.process_time()
            miue.attack(short)(clean, miue.Budget(8), miue.Run(number))
            if number:  # the first round warms up
                seconds[name].append(6 * (time.process_time() - start))
    medians = {name: median(values) for name, values in seconds.items()}
    ratio = medians["em:lasting"] / medians["mi-ue:quick,epochs=24,step_size=2"]
    data = f"CIFAR-10 (JPEG), {options.per_class} pictures per class"
    print(record("cost", miue.Run(), data=data, seconds=seconds, medians=medians, ratio=ratio), medians, ratio)


if __name__ == "__main__":
    main()
