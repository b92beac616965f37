"""What can go wrong with a link; every error says in `hint` what the operator does next.

    LinkError
    ├── BadBrokerUrl       refuse: the configured address of the broker
    ├── MessageTooLarge    refuse: this message, before it is sent
    └── NotConnected       retry: the line is down; the owner publishes again once it is up
"""

from __future__ import annotations


class LinkError(Exception):
    """The one base of the link's errors.

    Attributes:
        hint: what to type or check next; one line; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadBrokerUrl(LinkError):
    pass


class MessageTooLarge(LinkError):
    """A payload that some broker between HQ and the stores would not carry.

    Attributes:
        topic: where it was going.
        size_bytes: of the payload.
    """

    def __init__(self, topic: str, size_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"message of {size_bytes} bytes for {topic} is over the limit of {max_bytes}",
            hint="raise the broker's max_packet_size if it is what limits; otherwise report this as a defect",
        )
        self.topic = topic
        self.size_bytes = size_bytes


class NotConnected(LinkError):
    pass
