"""The command side: one master at headquarters, and what publishes it."""

import storelink.host.logs  # noqa: F401 - first: see there
