"""The limits of the API that a client can meet, each with its unit."""

from storelink.contract.limits import ENTRY_BYTES_MAX

SEARCH_CHARS_MAX = 200
SEARCH_LIMIT = 20
SEARCH_LIMIT_MAX = 100
"""Products of one answer."""

SAME_GTIN_MAX = 20
"""Products that one gtin may name in an answer."""

BODY_BYTES_MAX = 2 * ENTRY_BYTES_MAX
"""Of a request's body. An entry's data may have white space around it, which is not kept."""

TARGET_BYTES_MAX = 4_096
"""A request's path and query."""

HEADER_BYTES_MAX = 16_384
DEADLINE_S = 1.0
"""For an answer out of the replica."""

ANSWER_WITHIN_S = 5.0
"""For an entry to be durable; when the disk needs longer, the client cannot know whether the entry was accepted."""

REQUEST_S = 10.0
"""From a request's first byte (or from the connection) to the end of its answer."""

IDLE_S = 75
"""A connection stays open so long after an answer: the pools of HTTP clients keep theirs for about a minute."""

CONNECTIONS_MAX = 256
