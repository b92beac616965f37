"""What HQ and the stores share: the contract between them, how it travels, and what both need of a machine."""
