"""A till's software in a loop: plain sqlite3 on a path. Prints what it counted as one JSON object."""

import json
import random
import sqlite3
import sys
from collections import Counter


def main(path: str, rows: int, reads: int, seed: int) -> None:
    rng, db, newest = random.Random(seed), None, 0
    counts: Counter[str] = Counter()
    counts.update({"torn": 0, "backwards": 0})
    for at in range(reads):
        try:
            if db is None or at % 200 == 0:  # some tills stay, some come and go
                if db is not None:
                    db.close()
                db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            if at % 50 == 0:
                found = db.execute("SELECT schedule FROM prices").fetchall()
                complete = len(found) == rows
            elif at % 10 == 0:
                sku = f"{rng.randrange(rows):04}"
                db.execute("SELECT amount_minor FROM current_prices WHERE sku = ?", (sku,)).fetchall()
                db.execute("SELECT state, stale_seconds FROM freshness").fetchall()
                counts["reads"] += 1
                continue
            else:
                some = [f"{n:04}" for n in rng.sample(range(rows), 6)]
                found = db.execute("SELECT schedule FROM prices WHERE sku IN (?, ?, ?, ?, ?, ?)", some).fetchall()
                complete = len(found) == len(some)
        except sqlite3.Error as error:
            counts[f"error: {error}"] += 1
            db = None
            continue
        counts["reads"] += 1
        numbers = {json.loads(schedule)[-1][2] for (schedule,) in found}
        counts["torn"] += not complete or len(numbers) != 1
        counts["backwards"] += max(numbers, default=0) < newest
        counts["states"] += max(numbers, default=0) > newest
        newest = max(numbers, default=newest)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
