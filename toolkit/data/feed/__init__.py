"""From files to batches: the split, the order of an epoch, arrays and tf.data pipelines."""
