"""
The acts: deterministic pieces of work on real files, played in a process that can be killed at any call.

`stage` plays them, `workload` names them, `scenes` says what must hold afterwards. May import the product, the test bed
and the oracle.
"""
