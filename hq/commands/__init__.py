"""The commands of `hq`: each reads its words, asks the core, tells the master, prints the outcome."""
