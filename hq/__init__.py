"""The command side: one master at headquarters, and what publishes it."""

import link.logs  # noqa: F401 - first: see there
