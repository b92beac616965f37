"""What measures and shows the whole: the demo, and the figures that the documents promise."""
