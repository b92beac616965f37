"""Every size and count of the protocol, each with a name and a unit."""

MESSAGE_BYTES_MAX = 131_072
"""A whole MQTT payload; AWS IoT's hard limit is the lowest among brokers that matter."""

SEGMENT_BYTES_TARGET = 98_304
"""What HQ aims for in a sealed segment (compressed)."""

TAIL_BYTES_TARGET = 24_576
"""Encoded size at which HQ seals the rows behind the last segment into a new one."""

BODY_BYTES_MAX = 4_194_304
"""A payload after decompression."""

SEGMENT_BODY_BYTES_TARGET = 3_145_728
"""What HQ aims for at most in a sealed segment before compression: the two bounds are independent of each other."""

TAIL_BODY_BYTES_TARGET = 1_048_576
"""Size before compression at which HQ seals the rows behind the last segment, too; the head's list needs the rest."""

ROW_BYTES_MAX = 65_536
"""One row as compact JSON: alone it fits into every message that carries rows, whatever zstd makes of it."""

ROWS_MAX = 20_000
"""Rows and tombstones of one message."""

COMPRESS_ABOVE_BYTES = 512
"""Bodies up to this size travel as plain JSON."""

SEQ_MAX = 2**63 - 1
"""SQLite's and the wire's largest integer."""

KEY_CHARS_MAX = 64
TEXT_CHARS_MAX = 4_000
JSON_CHARS_MAX = 16_000
STEPS_MAX = 64
"""Steps of one price schedule."""

CONTEXTS_MAX = 16
"""Contexts of one file of declarations."""

KEYS_MAX = 4
COLUMNS_MAX = 48
"""Key and value columns of one declared context."""

CHOICES_MAX = 64

FETCH_FILTERS_PER_SUBSCRIBE = 8
FETCH_WINDOW = 40
"""Segment topics outstanding at once (AWS IoT allows 50 subscriptions a connection)."""

ENTRY_BYTES_MAX = 65_536
"""The data of one outbox entry, as compact JSON."""

ENTRY_TYPE_CHARS_MAX = 64
ENTRY_DEPTH_MAX = 32
"""Arrays and objects inside one another in an entry's data."""

BATCH_ENTRIES_MAX = 1_000
"""Entries of one outbox batch, with those that are withheld."""

BATCH_BYTES_TARGET = 65_536
"""What a store puts into one outbox batch, before compression; a single entry may be a little more."""

ACK_REFUSED_MAX = 1_000
STATUS_STREAMS_MAX = 256
"""Streams of one store's status."""

REFUSAL_DETAIL_CHARS_MAX = 200
"""What a store's status says of why it refuses a message."""
STATUS_VERSIONS_MAX = 8
