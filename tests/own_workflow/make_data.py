"""Make sessions.csv: 1,200 made-up measurements of mobile sessions, drawn with a fixed seed. None is anybody's.

The throughput follows Shannon's bound, the cell's free share and chance, so that a model has something to find.
"""

import csv
import math
import random
from pathlib import Path

SEED = 20
ROWS = 1200
BANDWIDTH_MHZ = {700: 10, 1800: 20, 3500: 60}
COLUMNS = ("session", "region", "distance_m", "indoor", "band_mhz", "rsrp_dbm", "sinr_db", "cqi", "prb_load")
TARGET = "throughput_mbps"


def main(file: Path) -> None:
    draw = random.Random(SEED)  # noqa: S311  (made-up data, not a secret)
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow([*COLUMNS, TARGET])
        for number in range(1, ROWS + 1):
            table.writerow(session(draw, number))


def session(draw: random.Random, number: int) -> list[object]:
    band = draw.choice(sorted(BANDWIDTH_MHZ))
    distance = min(1999, int(draw.weibullvariate(700, 1.6)) + 20)
    indoor = draw.random() < 0.4
    load = round(draw.betavariate(2, 3), 2)
    loss = 35 * math.log10(distance / 100) + 8 * math.log10(band / 700) + 12 * indoor + draw.gauss(0, 4)
    rsrp = round(min(-44.0, -62 - loss), 1)
    sinr = round(max(-20.0, min(30.0, 26 - 0.45 * loss - 8 * load + draw.gauss(0, 2))), 1)
    cqi = "" if draw.random() < 0.03 else max(1, min(15, round(sinr / 2 + 4)))  # some devices report none
    bits_per_hz = math.log2(1 + 10 ** (sinr / 10))
    throughput = 0.6 * BANDWIDTH_MHZ[band] ** 0.5 * 4 * bits_per_hz * (1 - 0.7 * load) * draw.lognormvariate(0, 0.12)
    region = draw.choice(["east", "north", "south", "west"])
    words = [f"s{number:05}", region, distance, str(indoor).lower(), band, rsrp, sinr, cqi, load]
    return [*words, round(throughput, 2)]


if __name__ == "__main__":
    main(Path(__file__).with_name("sessions.csv"))
