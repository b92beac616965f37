"""The API described."""
DOCUMENT: dict[str, object] = {}
