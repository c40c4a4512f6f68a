"""Another framework's network built anew: values of its file, and the Keras graph that grows by its operators."""
