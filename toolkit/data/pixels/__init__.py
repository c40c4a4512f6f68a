"""From encoded bytes to pixels of the size a network takes, on the host and in TensorFlow graphs."""
