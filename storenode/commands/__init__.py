"""The commands of `storenode` that are not the replica's."""
