"""
The test bed: real parts for `bench/` and `tests/`, which are brokers, HQ, stores, lines, disks and tills as processes.

Nothing here is installed with the product. It may import storelink, hq and storenode; nothing in those imports it.
"""
